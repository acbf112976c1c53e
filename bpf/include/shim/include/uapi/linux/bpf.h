/* SPDX-License-Identifier: GPL-2.0-only
 *
 * BCC carries a copy of the kernel's bpf.h.
 */
#pragma once

#include <bcc/bpf.h>
