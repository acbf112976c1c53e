/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Included by BCC's helpers.h, which has its own log2; BPF_STACK_TRACE rounds its size with this.
 */
#pragma once

#include <linux/types.h>

#define roundup_pow_of_two(n) ((n) <= 1 ? 1 : 1 << (32 - __builtin_clz((n) - 1)))
