/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What fasthttp_server.bpf.c reads of a request that begins, and keeps of it.
 */

/* Of requests that are being answered; one that gives way to others has its texts cut to what the element above has. */
BPF_TABLE("lru_hash", struct goroutine_key, struct fasthttp_server_long, fasthttp_server_texts, 4096);
BPF_ARRAY(fasthttp_server_no_texts, struct fasthttp_server_long, 1);

/* Which header a name of 10 or 11 bytes is, however it is written: DisableHeaderNamesNormalizing leaves it as it came. */
static __always_inline u64 fasthttp_server_header(u64 low, u64 high, u64 length)
{
	return go_header_of(low, high | (length & 1 ? 0x202020ULL : 0x2020ULL));
}

/* Walks a request header's []argsKV; `walk` is all zero. found[h] gets the value of each header that is wanted, without bytes
 * where it is there more than once. What is left of the list is found[HEADER_OTHER] meanwhile: of a map's memory the verifier
 * knows no values, each of which would be another state. */
static __always_inline void fasthttp_server_walk(struct go_string list, u64 wanted, union fasthttp_server_reading *buffer,
						 struct go_string found[HEADERS])
{
	struct go_string *left = &found[HEADER_OTHER];
	u64 many, which;

	*left = list;
#pragma clang loop unroll(disable)
	for (u32 round = 0; round < FASTHTTP_KV_ROUNDS; round++) {
		if (!left->length)
			break;
		/* FASTHTTP_KVS or what is left, without a branch. */
		many = (left->length | (is_zero(left->length / (FASTHTTP_KVS + 1)) - 1)) & FASTHTTP_KVS;
		if (read_user_present(buffer->walk.words, many * 8 * FASTHTTP_KV_WORDS, left->data))
			break;
		left->length -= many;
		left->data += many * 8 * FASTHTTP_KV_WORDS;
#pragma clang loop unroll(disable)
		for (u32 i = 0; i < FASTHTTP_KVS; i++) {
			u64 *element = &buffer->walk.words[i * FASTHTTP_KV_WORDS], length = element[1];

			if (i >= many)
				break;
			if ((length - 10) >> 1)
				continue;
			buffer->walk.name[0] = buffer->walk.name[1] = 0;
			read_user_present(buffer->walk.name, 10 + (length & 1), element[0]);
			which = fasthttp_server_header(buffer->walk.name[0], buffer->walk.name[1], length);
			if (!(wanted >> which & 1))
				continue;
			which &= HEADERS - 1;
			found[which].length = found[which].data ? 0 : element[4];
			found[which].data = element[3];
		}
	}
}

/* Fills `strings` and what of the request is kept as it is. Returns the span id of a valid traceparent, whose ids and flags are
 * in `request->context` then, or 0. `header`: the *RequestHeader. */
static __always_inline u64 fasthttp_server_read(struct target *target, u64 header, struct fasthttp_server_in_flight *request,
						struct fasthttp_server_strings *strings)
{
	union fasthttp_server_reading buffer;
	struct go_block *block = go_read_block(&buffer.block, header, target->fasthttp_header_block);
	u16 start = target->fasthttp_header_block;
	u64 embedded = header + (target->fasthttp_header_embedded == MISSING ? 0 : target->fasthttp_header_embedded);
	u64 at, bytes, wanted, method = 0;
	struct go_string list = {};

	__builtin_memset(strings->headers, 0, sizeof(strings->headers));
	go_field(block, header, start, target->fasthttp_header_method, &strings->method.data, 2);
	go_field(block, header, start, target->fasthttp_header_uri, &strings->target.data, 2);
	go_field(block, header, start, target->fasthttp_header_host, &strings->host.data, 2);
	if (target->options & OPTION_user_agent)
		go_field(block, header, start, target->fasthttp_header_user_agent, &strings->headers[HEADER_USER_AGENT].data, 2);
	__builtin_memset(&buffer, 0, sizeof(buffer));
	at = strings->method.length;
	CLAMP(at, 15);
	if (read_user_present(buffer.line, at, strings->method.data))
		at = 0;
	request->method_bytes = at;
	if (at - 1 < 8)
		method = *(u64 *)buffer.line;
	request->method = method && HTTP_SERVER_KNOWN_METHOD(method) ? method : 0;
	request->line_bytes = 0;
	if (at) {
		buffer.line[at] = ' ';
		at++;
	}
	bytes = strings->target.length;
	CLAMP(bytes, 56);
	if (!read_user_present(buffer.line + at, bytes, strings->target.data))
		request->line_bytes = at + bytes;
	__builtin_memcpy(request->line, buffer.line, sizeof(request->line));
	request->protocol_minor = !(connection_word(embedded, target->fasthttp_header_old) & 0xff);
	if (target->options & OPTION_tracecontext && target->fasthttp_header_lines != MISSING &&
	    target->fasthttp_kv_no_value == 8 * (FASTHTTP_KV_WORDS - 1)) {
		wanted = 1 << HEADER_TRACEPARENT | 1 << HEADER_TRACESTATE;
		__builtin_memset(&buffer, 0, sizeof(buffer));
		read_user_present(&list, sizeof(list), embedded + target->fasthttp_header_lines);
		fasthttp_server_walk(list, wanted, &buffer, strings->headers);
	}
	if (!strings->headers[HEADER_TRACEPARENT].length)
		return 0;
	__builtin_memset(&buffer, 0, sizeof(buffer));
	return traceparent_read(strings->headers[HEADER_TRACEPARENT], &buffer.text, &request->context);
}

#define FASTHTTP_SERVER_TEXT(texts, field, string, max)                                                                   \
	do {                                                                                                              \
		u64 bytes = (string).length;                                                                              \
		CLAMP(bytes, max);                                                                                        \
		if (read_user_present((texts)->field, bytes, (string).data))                                              \
			bytes = 0;                                                                                        \
		(texts)->field##_bytes = bytes;                                                                           \
	} while (0)

/* Copies the texts of a request whose record is a large one. */
static __always_inline void fasthttp_server_keep(struct goroutine_key *key, struct fasthttp_server_in_flight *request,
						 struct fasthttp_server_strings *strings)
{
	struct fasthttp_server_long *texts;
	u64 at = strings->method.length, bytes = strings->target.length;
	u32 zero = 0;

	texts = fasthttp_server_no_texts.lookup(&zero);
	if (!texts || fasthttp_server_texts.update(key, texts))
		return;
	texts = fasthttp_server_texts.lookup(key);
	if (!texts)
		return;
	request->is_long = 1;
	CLAMP(at, 40);
	if (read_user_present(texts->line, at, strings->method.data))
		at = 0;
	texts->method_bytes = at;
	if (at) {
		texts->line[at] = ' ';
		at++;
	}
	CLAMP(bytes, 300);
	if (!read_user_present(texts->line + at, bytes, strings->target.data))
		texts->line_bytes = at + bytes;
	FASTHTTP_SERVER_TEXT(texts, host, strings->host, 88);
	FASTHTTP_SERVER_TEXT(texts, user_agent, strings->headers[HEADER_USER_AGENT], 136);
	FASTHTTP_SERVER_TEXT(texts, tracestate, strings->headers[HEADER_TRACESTATE], 176);
}

/* Copies what a request's record will need of its texts. */
static __always_inline void fasthttp_server_copy(struct goroutine_key *key, struct fasthttp_server_in_flight *request,
						 struct fasthttp_server_strings *strings)
{
	u64 bytes = strings->host.length, words[FASTHTTP_SERVER_HOST / 8] = {};

	request->is_long = 0;
	CLAMP(bytes, 32);
	if (read_user_present(words, bytes, strings->host.data))
		bytes = 0;
	__builtin_memcpy(request->host, words, sizeof(request->host));
	request->host_bytes = bytes;
	if (strings->headers[HEADER_USER_AGENT].length || strings->headers[HEADER_TRACESTATE].length ||
	    strings->method.length > FASTHTTP_SERVER_METHOD || strings->target.length > FASTHTTP_SERVER_TARGET ||
	    strings->host.length > FASTHTTP_SERVER_HOST)
		fasthttp_server_keep(key, request, strings);
}
