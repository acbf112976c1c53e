/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What http_client.bpf.c reads of a Transport's request, its response, and its error.
 */

/* What is told of an error, given the words of an interface value: the address of its type in the file, or a cancellation. */
static __always_inline u64 http_client_error(struct target *target, u64 bias, u64 itab, u64 data)
{
	struct go_string text;
	u64 words[3] = {}, cause = 0;

	/* What roundTrip takes off before it returns: structs of one error each. */
	if (itab == target->nothing_written_itab + bias || itab == target->read_error_itab + bias) {
		if (read_user(words, 2 * sizeof(u64), data))
			return 0;
		itab = words[0];
		data = words[1];
		words[0] = words[1] = 0;
	}
	/* internal/abi/iface.go, ITab: Inter, Type */
	if (itab == target->error_string_itab + bias) {
		/* context.Canceled, and net/http's errRequestCanceled up to Go 1.22 (transport.go). */
		text = go_read_string(data, 0);
		if (text.length >= 16)
			read_user(words, text.length < sizeof(words) ? 16 : sizeof(words), text.data);
		if (words[0] == 0x20747865746e6f63ULL && words[1] == 0x64656c65636e6163ULL && text.length == 16)
			return HTTP_CLIENT_CANCELED; /* "context canceled" */
		if (words[0] == 0x707474682f74656eULL && words[1] == 0x736575716572203aULL &&
		    words[2] == 0x6c65636e61632074ULL)
			return HTTP_CLIENT_CANCELED; /* "net/http: request cancel…" */
	} else if (itab == target->op_error_itab + bias) {
		cause = go_read_word(data, target->op_error_err);
	}
	if (cause)
		return (go_read_word(cause, 8) - bias) | HTTP_CLIENT_IN_OP_ERROR;
	return go_read_word(itab, 8) - bias;
}

static __always_inline struct go_string http_client_part(struct http_client_in_flight *request, u16 offset)
{
	struct go_string part = {};
	u32 word = offset / 8 & 15;

	if (offset == MISSING)
		return part;
	part.data = request->url[word];
	part.length = request->url[word + 1];
	return part;
}

/* The method and the URL's parts. Returns the method. */
static __always_inline struct go_string http_client_read_request(struct target *target,
								 struct http_client_in_flight *request)
{
	struct go_string method;
	u64 words[3] = {}; /* Method and URL, the first fields since Go 1.0 */

	if (target->request_method == 0 && target->request_url == 16) {
		read_user_present(words, sizeof(words), request->request);
		method.data = words[0];
		method.length = words[1];
	} else {
		method = go_read_string(request->request, target->request_method);
		words[2] = go_read_word(request->request, target->request_url);
	}
	read_user_present(request->url, HTTP_CLIENT_URL_BYTES, words[2]);
	return method;
}

static __always_inline void http_client_read_response(struct target *target, u64 response, struct http_client_fixed *fixed)
{
	u64 words[5] = {}, major, minor; /* StatusCode, Proto, ProtoMajor, ProtoMinor */

	if (!response)
		return;
	if (target->response_proto_major - target->response_status_code == 24 &&
	    target->response_proto_minor - target->response_status_code == 32) {
		read_user_present(words, sizeof(words), response + target->response_status_code);
		major = words[3];
		minor = words[4];
	} else {
		words[0] = go_read_word(response, target->response_status_code);
		major = go_read_word(response, target->response_proto_major);
		minor = go_read_word(response, target->response_proto_minor);
	}
	fixed->status = words[0];
	fixed->protocol = major << 4 | (minor & 15);
}

/* Counts the redirects that led to a request: net/http/client.go, do, makes one that names the response that redirected it;
 * up to ten times by default. Counted in the map's memory, of which the verifier knows no values that tell rounds apart. */
static __always_inline void http_client_redirects(struct target *target, struct http_client_in_flight *request)
{
	u64 response = request->redirect;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 16; i++) {
		if (!response)
			break;
		request->resends++;
		response = go_read_word(go_read_word(response, target->response_request), target->request_response);
	}
}
