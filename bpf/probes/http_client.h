/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What http_client.bpf.c keeps between start and end of a request, and the records that it submits.
 */

/* In http_client_fixed.error and red_key.error, which hold the address of the error's type else. */
#define HTTP_CLIENT_CANCELED 1
/* The type is that of a *net.OpError's cause. */
#define HTTP_CLIENT_IN_OP_ERROR (1ULL << 63)

/* What lies in front of url.URL's end: in each Go from 1.19 to 1.27 the struct has 144 bytes, none of the fields that are
 * read ends behind 120. */
#define HTTP_CLIENT_URL_BYTES 120

/* Between start and end. net/http and its caller hold the request, and with it the URL, until roundTrip returns. */
struct http_client_in_flight {
	CLIENT_SPAN_MEMBERS
	u64 request;
	u64 redirect;  /* the response that redirected to it, if there is one */
	u64 bias;      /* load bias of the executable */
	u64 failed_ns; /* when the last attempt failed, which may not be the end */
	u64 error;     /* of that attempt */
	u64 method;    /* its bytes, where it is a known one; else 0. Only for metrics */
	u64 given; /* what the last attempt's connection has been given: HTTP/2's request, 1 with HTTP/1; 0: no attempt yet */
	u32 peer[4];   /* address as on the wire, IPv4 as ::ffff:a.b.c.d */
	u16 peer_port;
	u16 resends; /* failed attempts and, at the end, redirects before this one */
	struct connection_key connection; /* port 0: the span wasn't published */
	u32 by_http2; /* 1: begun by the Transport of golang.org/x/net/http2, used by itself */
	u64 url[HTTP_CLIENT_URL_BYTES / 8 + 2]; /* a url.URL, once it is needed */
};

#define HTTP_CLIENT_URL_USER 1	   /* it has credentials */
#define HTTP_CLIENT_URL_RAW_PATH 2 /* `path` is escaped as it was sent */

struct http_client_fixed {
	struct span_header header;
	u64 error;
	u32 peer[4];
	u16 status; /* 0: there was no response */
	u16 peer_port;
	u16 path_bytes;
	u16 query_bytes;
	u16 url_bytes;
	u8 method_bytes;
	u8 scheme_bytes;
	u8 host_bytes;
	u8 url_traits;
	u8 protocol; /* major and minor, 4 bits each */
	u8 resends;
};

/* Where the URL's parts are those of one text, as after url.Parse of one without escapes. */
struct http_client_record_256 {
	struct http_client_fixed fixed;
	char method[8];
	char url[152];
};

struct http_client_record_1024 {
	struct http_client_fixed fixed;
	char method[24];
	char scheme[8];
	char host[128];
	char path[408];
	char query[360];
};

_Static_assert(sizeof(struct http_client_record_256) == 256, "stride of ring_256");
_Static_assert(sizeof(struct http_client_record_1024) == 1024, "stride of ring_1024");
