//! What the tests of the public port try: paths of the inside, and headers that claim to come from there.

/// Paths that only the internal sockets serve.
pub(super) const INSIDE: [&str; 12] = [
    "/api/v1/agents",
    "/api/v1/openapi.json",
    "/api/v1/tokens",
    "/api/v1/login",
    "/api/v1/setup",
    "/api/tunnel_status.php",
    "/api/quickconnect_check",
    "/setup",
    "/readyz",
    "/metrics",
    "/api/v1/agents/a/exec",
    "/",
];

/// Headers by which a front would name its client.
pub(super) const LOOPBACK_HEADERS: &[(&str, &str)] = &[
    ("x-forwarded-for", "127.0.0.1"),
    ("x-real-ip", "::1"),
    ("forwarded", "for=127.0.0.1;host=localhost"),
    ("x-forwarded-host", "localhost:7800"),
    ("x-original-url", "/api/v1/agents"),
    ("x-rewrite-url", "/api/v1/agents"),
    ("x-http-method-override", "GET"),
    ("authorization", "Bearer llt_anything"),
];
