//! HTTP, as all of fcvm speaks it.

use std::{error::Error, fmt, iter, sync::Once};

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

/// A request failed. Says only what is at the bottom of it, such as `Connection refused`: what is above
/// names the layers of the client.
#[derive(Debug)]
pub struct HttpError(reqwest::Error);

impl HttpError {
    pub(crate) fn is_connect(&self) -> bool {
        self.0.is_connect()
    }

    pub(crate) fn is_timeout(&self) -> bool {
        self.0.is_timeout()
    }

    pub(crate) fn is_redirect(&self) -> bool {
        self.0.is_redirect()
    }

    /// Whether a certificate was not accepted.
    pub(crate) fn is_certificate(&self) -> bool {
        self.causes().any(|error| {
            matches!(
                tls(error),
                Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
            )
        })
    }

    /// The error and what is behind it, from the top.
    fn causes(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        let first: &(dyn Error + 'static) = &self.0;
        iter::successors(Some(first), |&error| error.source())
    }
}

impl From<reqwest::Error> for HttpError {
    /// Leaves out the address, which is long and may have a signature in it.
    fn from(error: reqwest::Error) -> Self {
        Self(error.without_url())
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.causes().last().map_or(Ok(()), |error| fmt::Display::fmt(error, f))
    }
}

impl Error for HttpError {}

/// An `io::Error` has another error as its own, and names only what is behind that as its source.
fn tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<std::io::Error>() {
        Some(error) => error.get_ref().and_then(|inner| tls(inner)),
        None => error.downcast_ref(),
    }
}
