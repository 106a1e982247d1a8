//! HTTP, as all of fcvm speaks it.

use std::sync::Once;

use reqwest::ClientBuilder;

/// Names us to servers.
const USER_AGENT: &str = concat!("fcvm/", env!("CARGO_PKG_VERSION"));

/// A builder of HTTP clients, with the cryptography that fcvm is built with and the certificates of
/// the system. Proxies are those of the environment.
pub(crate) fn client() -> ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Fails where there is one already, which then is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
    reqwest::Client::builder().user_agent(USER_AGENT)
}
