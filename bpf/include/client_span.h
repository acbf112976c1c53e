/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What every client's in-flight value begins with; bpf/include/client_life.h fills it.
 */

#define CLIENT_SPAN_MEMBERS                                                                                               \
	u64 start_ns;                                                                                                     \
	u64 span_id;                                                                                                      \
	struct trace_context context;                                                                                     \
	u64 parent_span_id; /* 0: a root */                                                                               \
	u64 parent_g;	    /* where the parent's in-flight value is */

struct client_span {
	CLIENT_SPAN_MEMBERS
} __attribute__((may_alias));
