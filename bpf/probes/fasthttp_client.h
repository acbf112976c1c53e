/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What fasthttp_client.bpf.c keeps between start and end of an attempt, and the records that it submits.
 */

/* In fasthttp_client_fixed.error and red_key.error, beside those of http_client.h: what follows is a number made of the text
 * of an errors.New, of which there is one for each error that fasthttp names. */
#define FASTHTTP_CLIENT_TEXT_ERROR (1ULL << 62)

/* What of such a text tells it from all others of every version. */
#define FASTHTTP_CLIENT_TEXT_WORDS 8

/* Between start and end. fasthttp and its caller hold the client, the request and the response until Do returns. */
struct fasthttp_client_in_flight {
	CLIENT_SPAN_MEMBERS
	u64 client;	    /* *HostClient */
	u64 request;
	u64 response;  /* 0: the caller wants none, and gets none */
	u64 bias;      /* load bias of the executable */
	u64 failed_ns; /* 0, or in fasthttp_client_before: when it failed, and it may be repeated */
	u32 generation; /* of the target */
	u32 peer[4];	/* address as on the wire, IPv4 as ::ffff:a.b.c.d */
	u16 peer_port;
	u16 resends; /* attempts and redirects before this one */
	u16 status;  /* of a response that the caller doesn't want */
	u8 no_http11; /* the same of its protocol */
	u8 connected; /* there was a connection for it: the request has been written as far as that went */
	u8 redirected; /* in fasthttp_client_before: what follows is a redirect of it */
	u8 reserved[7];
	struct connection_key connection; /* port 0: the span wasn't published */
};

#define FASTHTTP_CLIENT_URL_USER 1	/* it has credentials */
#define FASTHTTP_CLIENT_URL_SENT 2	/* `path` is what stands in the request's first line, query and all */
#define FASTHTTP_CLIENT_URL_HTTPS 4

struct fasthttp_client_fixed {
	struct span_header header;
	u64 error;
	u32 peer[4];
	u16 status; /* 0: there was no response */
	u16 peer_port;
	u16 path_bytes;
	u16 query_bytes;
	u8 method_bytes;
	u8 host_bytes;
	u8 url_traits;
	u8 protocol; /* major and minor, 4 bits each */
	u8 resends;
	u8 reserved[3];
};

struct fasthttp_client_record_256 {
	struct fasthttp_client_fixed fixed;
	char method[8];
	char host[48];
	char path[104];
};

struct fasthttp_client_record_1024 {
	struct fasthttp_client_fixed fixed;
	char method[24];
	char host[128];
	char path[560];
	char query[216];
};

_Static_assert(sizeof(struct fasthttp_client_record_256) == 256, "stride of ring_256");
_Static_assert(sizeof(struct fasthttp_client_record_1024) == 1024, "stride of ring_1024");

/* The attempts under way, by g: they stay on their goroutine. */
BPF_HASH(fasthttp_client_inflight, struct goroutine_key, struct fasthttp_client_in_flight, 16384);

/* The last attempt of a goroutine, where it may be repeated or redirected, or was. */
BPF_TABLE("lru_hash", struct goroutine_key, struct fasthttp_client_in_flight, fasthttp_client_before, 4096);
/* Never written to: a new one, for which the stack has no room. */
BPF_ARRAY(fasthttp_client_blank, struct fasthttp_client_in_flight, 1);

/* The texts of a request, where they lie. */
struct fasthttp_client_texts {
	struct go_string method;
	struct go_string host;
	struct go_string path;
	struct go_string query;
};

/* Finds a request's texts, and returns FASTHTTP_CLIENT_URL_… of its URL. */
static __always_inline u8 fasthttp_client_read_request(struct target *target, struct fasthttp_client_in_flight *request,
						       struct fasthttp_client_texts *texts)
{
	u64 at = request->request, scheme_bytes = 0;
	u8 traits = 0;

	texts->method = go_read_string(at, target->fasthttp_request_method);
	if (go_read_byte(at, target->fasthttp_request_parsed)) {
		texts->host = go_read_string(at, target->fasthttp_uri_host);
		scheme_bytes = go_read_word(at, target->fasthttp_uri_scheme + 8);
		if (target->fasthttp_uri_username != MISSING && go_read_word(at, target->fasthttp_uri_username + 8))
			traits |= FASTHTTP_CLIENT_URL_USER;
	} else {
		texts->host = go_read_string(at, target->fasthttp_request_host);
		request->connected = 1;
	}
	/* What the first line begins with is put together as the request is written. */
	if (request->connected) {
		texts->path = go_read_string(at, target->fasthttp_request_target);
		traits |= FASTHTTP_CLIENT_URL_SENT;
	} else {
		texts->path = go_read_string(at, target->fasthttp_uri_path);
		texts->query = go_read_string(at, target->fasthttp_uri_query);
	}
	/* Of "http" and "https"; where there is none, the client's own. */
	if (scheme_bytes ? scheme_bytes == 5 : go_read_byte(request->client, target->fasthttp_client_is_tls))
		traits |= FASTHTTP_CLIENT_URL_HTTPS;
	return traits;
}
