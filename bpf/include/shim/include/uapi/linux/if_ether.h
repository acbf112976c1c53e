/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Included by BCC's proto.h; nothing of it is used.
 */
#pragma once

#include <linux/types.h>
