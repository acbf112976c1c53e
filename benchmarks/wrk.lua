-- What wrk measured, as one line of JSON behind its own report: latencies in microseconds.
function done(summary, latency, requests)
	local errors = summary.errors
	print(string.format(
		'{"requests": %d, "seconds": %f, "p50_us": %d, "p99_us": %d, "p999_us": %d, "errors": %d}',
		summary.requests, summary.duration / 1e6,
		latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
		errors.connect + errors.read + errors.write + errors.status + errors.timeout
	))
end
