/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Included by BCC's helpers.h for the size of a ring buffer's page.
 */
#pragma once

#define PAGE_SIZE 4096
