/* SPDX-License-Identifier: GPL-2.0-only
 *
 * A program that does nothing: what a hit costs before any work is done.
 */

int empty(struct pt_regs *ctx)
{
	(void)ctx;
	return 0;
}
