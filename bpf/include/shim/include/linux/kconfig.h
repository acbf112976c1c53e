/* SPDX-License-Identifier: GPL-2.0-only
 *
 * BCC's helpers.h insists on this option; whether the running kernel has it is found out by trying.
 */
#pragma once

#define CONFIG_BPF_SYSCALL 1
