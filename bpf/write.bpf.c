/* SPDX-License-Identifier: GPL-2.0-only
 *
 * --propagation write: a traceparent header, written into the buffer in which net/http builds the head of a request that
 * include/wire.h has armed. Declared in otel_goprobe/probes/propagation.py; the only program that changes a target's memory.
 */

enum write_headers {
	WRITE_HEADERS_UNKNOWN, /* not all of them could be seen */
	WRITE_HEADERS_UNTRACED,
	WRITE_HEADERS_TRACED, /* the application sends a traceparent itself */
};

/* Of a group or bucket. */
#define WRITE_SLOTS 8

/* Whether a map[string][]string (struct go_map, include/go.h) has the key "traceparent", in capitals or not. */
static __always_inline enum write_headers write_headers_of(u64 map, u16 swiss_maps)
{
	u64 swiss = swiss_maps & 1;
	u64 slot_bytes = 16 + (SWISS_SLOT_BYTES - 16) * swiss;
	u64 group_bytes = BUCKET_BYTES - (BUCKET_BYTES - SWISS_GROUP_BYTES) * swiss;
	u64 flip = 0x80 * swiss, lowest = BUCKET_MIN_TOPHASH + (0x80 - BUCKET_MIN_TOPHASH) * swiss;
	u64 base, group, next, last, old, control = 0, words[2] = {};
	struct go_string key;
	struct go_map head;

	if (read_user(&head, sizeof(head), map))
		return WRITE_HEADERS_UNKNOWN;
	if (!head.used)
		return WRITE_HEADERS_UNTRACED;
	base = head.groups;
	last = ((1ULL << (head.log2_buckets >> 8 & 15)) - 1) & (swiss - 1);
	old = head.directory_length & (swiss - 1);
	if (head.directory_length & -swiss) {
		read_user(words, sizeof(words), go_read_word(base, 0) + SWISS_GROUPS_OFFSET);
		base = words[0];
		last = words[1];
	}
	group = base;
#pragma clang loop unroll(disable)
	for (u32 round = 0; round < HEADER_GROUPS * WRITE_SLOTS; round++) {
		u32 i = round % WRITE_SLOTS;

		if (!i && read_user(&control, sizeof(control), group))
			break;
		if (((control & 0xff) ^ flip) >= lowest) {
			if (read_user(&key, sizeof(key), group + 8 + i * slot_bytes))
				break;
			if (key.length == 11) {
				words[1] = 0;
				if (read_user(words, 11, key.data))
					break;
				if (is_zero(((words[0] | EACH_BYTE(0x20)) ^ 0x7261706563617274ULL) |
					    ((words[1] | 0x202020) ^ 0x746e65)))
					return WRITE_HEADERS_TRACED;
			}
			if (!--head.used)
				return WRITE_HEADERS_UNTRACED;
		}
		control >>= 8;
		if (i < WRITE_SLOTS - 1)
			continue;
		next = go_read_word(group, BUCKET_OVERFLOW_OFFSET) & (swiss - 1);
		if (!next) {
			if (last) {
				last--;
				next = base += group_bytes;
			} else {
				/* A map that grows: its old buckets, as go_headers does. */
				if (!old)
					break;
				next = base = old;
				old = 0;
				last = ((1ULL << (head.log2_buckets >> 8 & 15)) >>
					!(head.log2_buckets & BUCKET_SAME_SIZE_GROW)) - 1;
			}
		}
		group = next;
	}
	return WRITE_HEADERS_UNKNOWN;
}

/* No bufio.Writer of a connection is as large (net/http/transport.go, Transport.WriteBufferSize: 4096 where it isn't set). */
#define WRITE_MAX_BUFFER_BYTES (16 << 20)

/* Where (*Request).write, on the goroutine of a connection, calls
 *
 * func (h Header) writeSubset(w io.Writer, exclude map[string]bool, trace *httptrace.ClientTrace) error, since Go 1.12:
 * the request line and Host, User-Agent and Content-Length lines are in the buffer, or have been sent from it, and no other
 * header is. Nothing else uses the buffer meanwhile. Registers: h = ARG1, w = ARG2, ARG3. */
int write_request_headers(struct pt_regs *ctx)
{
	struct goroutine_key key = {.kind = KIND_http_client};
	u64 writer = GO_ARG3(ctx), line[TRACEPARENT_LINE_WORDS], n = 0;
	struct write_header *armed, header;
	enum write_headers headers;
	struct target *target;
	struct go_string buffer;
	u32 slot;

	target = target_of(ctx, &slot);
	if (!target)
		return 0;
	key.goid = writer;
	key.slot = slot;
	armed = write_armed.lookup(&key);
	/* Of a request's two maps of headers the other has what the Transport adds. */
	if (!armed || armed->headers != GO_ARG1(ctx))
		return 0;
	header = *armed;
	write_armed.delete(&key);
	headers = write_headers_of(header.headers, target->swiss_maps);
	if (headers == WRITE_HEADERS_TRACED) {
		count(slot, COUNTER_write_own_header);
		return 0;
	}
	buffer = go_read_string(writer, target->buffered_writer_buf);
	if (headers != WRITE_HEADERS_UNTRACED || bpf_ktime_get_ns() - header.armed_ns > CONNECTION_MAX_AGE_NS ||
	    target->buffered_writer_n == MISSING || read_user(&n, sizeof(n), writer + target->buffered_writer_n) ||
	    go_read_word(writer, target->buffered_writer_err) || !buffer.data || buffer.length > WRITE_MAX_BUFFER_BYTES ||
	    n > buffer.length || go_read_interface(writer, target->buffered_writer_wr) != header.persist_conn) {
		count(slot, COUNTER_write_failed);
		return 0;
	}
	if (buffer.length - n < TRACEPARENT_LINE_BYTES) {
		count(slot, COUNTER_write_no_room);
		return 0;
	}
	/* Another agent's, which found the same place: nothing that net/http writes in front of the headers looks like it. */
	if (n >= TRACEPARENT_LINE_BYTES && !read_user(line, sizeof(*line), buffer.data + n - TRACEPARENT_LINE_BYTES) &&
	    (line[0] | EACH_BYTE(0x20)) == 0x7261706563617274ULL) {
		count(slot, COUNTER_write_own_header);
		return 0;
	}
	traceparent_words(line, header.trace_id, header.span_id, header.flags);
	/* Behind what counts; only then does it count. */
	if (bpf_probe_write_user((void *)(buffer.data + n), line, TRACEPARENT_LINE_BYTES)) {
		count(slot, COUNTER_write_failed);
		return 0;
	}
	n += TRACEPARENT_LINE_BYTES;
	count(slot, bpf_probe_write_user((void *)(writer + target->buffered_writer_n), &n, sizeof(n)) ? COUNTER_write_failed :
													COUNTER_write_inserted);
	return 0;
}
