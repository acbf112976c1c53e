/* SPDX-License-Identifier: GPL-2.0-only
 *
 * BCC stores LINUX_VERSION_CODE in the program; kernels from 5.0 on ignore it. Nothing may be decided by it.
 */
#pragma once

#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 15, 0)
