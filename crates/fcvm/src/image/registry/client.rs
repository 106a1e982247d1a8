//! Requests to one repository of one registry.

use std::{sync::Mutex, time::Duration};

use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE, RETRY_AFTER},
};
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::{
    Patience, RegistryError, TlsOptions,
    authorization::{self, challenge},
    connection,
    patience::Attempts,
};
use crate::{
    hash::Digest,
    http::HttpError,
    image::{
        Reference,
        credentials::Login,
        registries::{Endpoint, Security},
        spec::{MANIFESTS, MAX_JSON},
    },
    output::sanitize,
};

/// Errors are short; of a long one the beginning will do.
const MAX_ERROR: usize = 16 << 10;
const MAX_MESSAGE: usize = 300;
const DIGEST: &str = "docker-content-digest";

/// One repository of one registry.
pub(super) struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
    security: Security,
    pub(super) login: Option<Login>,
    pub(super) patience: Patience,
    /// `https` or `http`, found at the first request.
    scheme: OnceCell<&'static str>,
    /// What the last challenge was answered with.
    authorization: Mutex<Option<HeaderValue>>,
}

/// A manifest or an index.
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    /// As the registry's header says; what the content says of itself goes before.
    pub(super) media_type: Option<String>,
}

/// A blob that is coming.
pub(super) struct Body {
    pub(super) response: Response,
    /// Which byte of the blob the first one is.
    pub(super) start: u64,
}

/// Makes sure that a registry accepts a login.
///
/// # Errors
/// Where it does not, or cannot be asked.
pub fn check_login(endpoint: &Endpoint, login: &Login, tls: &TlsOptions) -> Result<(), RegistryError> {
    let runtime = super::runtime()?;
    let client = Client::new(endpoint.clone(), Some(login.clone()), tls, &Patience::default())?;
    runtime.block_on(client.check_login())
}

impl Client {
    pub(super) fn new(
        endpoint: Endpoint,
        login: Option<Login>,
        tls: &TlsOptions,
        patience: &Patience,
    ) -> Result<Self, RegistryError> {
        Ok(Self {
            http: connection::connect(&endpoint, tls, patience)?,
            security: tls.security(&endpoint),
            endpoint,
            login,
            patience: patience.clone(),
            scheme: OnceCell::new(),
            authorization: Mutex::new(None),
        })
    }

    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    pub(super) fn registry(&self) -> String {
        self.endpoint.registry.clone()
    }

    pub(super) fn repository(&self) -> &str {
        &self.endpoint.repository
    }

    /// What the repository has under a name.
    pub(super) async fn manifest(&self, reference: &Reference) -> Result<Fetched, RegistryError> {
        let name = self.name(reference);
        let mut attempts = Attempts::new(&self.patience);
        let fetched = loop {
            match self.fetch_manifest(reference, &name).await {
                Ok(fetched) => break fetched,
                Err(error) => attempts.after(error).await?,
            }
        };
        match reference {
            Reference::Digest(expected) if fetched.digest != *expected => Err(RegistryError::Digest {
                registry: self.registry(),
                found: fetched.digest,
                expected: *expected,
            }),
            _ => Ok(fetched),
        }
    }

    async fn fetch_manifest(&self, reference: &Reference, name: &str) -> Result<Fetched, RegistryError> {
        let response = self.request(Method::GET, &manifest_path(reference), None).await?;
        let response = self.accepted(response, name).await?;
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.map(ToOwned::to_owned);
        let bytes = self.read(response, name, MAX_JSON).await?;
        Ok(Fetched { digest: Digest::of(&bytes), bytes, media_type })
    }

    /// The digest of what the repository has under a name, where the registry tells it.
    pub(super) async fn digest(&self, reference: &Reference) -> Result<Option<Digest>, RegistryError> {
        let mut attempts = Attempts::new(&self.patience);
        let response = loop {
            let asked = async {
                let response = self.request(Method::HEAD, &manifest_path(reference), None).await?;
                self.accepted(response, &self.name(reference)).await
            };
            match asked.await {
                Ok(response) => break response,
                Err(error) => attempts.after(error).await?,
            }
        };
        Ok(response.headers().get(DIGEST).and_then(|value| value.to_str().ok()?.parse().ok()))
    }

    /// Starts to fetch a blob from that byte on. Tried once.
    pub(super) async fn blob(&self, digest: &Digest, from: u64) -> Result<Body, RegistryError> {
        let response = self.request(Method::GET, &format!("blobs/{digest}"), Some(from)).await?;
        // It does not have so much: the beginning is not this blob's.
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE && from > 0 {
            let response = self.request(Method::GET, &format!("blobs/{digest}"), None).await?;
            return Ok(Body { response: self.accepted(response, &digest.to_string()).await?, start: 0 });
        }
        let response = self.accepted(response, &digest.to_string()).await?;
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT => range_start(&response).unwrap_or(0),
            _ => 0,
        };
        Ok(Body { response, start })
    }

    async fn check_login(&self) -> Result<(), RegistryError> {
        let mut attempts = Attempts::new(&self.patience);
        loop {
            let asked = async {
                let url = format!("{}://{}/v2/", self.scheme().await?, self.endpoint.registry);
                let response = self.authorized(Method::GET, &url, None).await?;
                self.accepted(response, "/v2/").await
            };
            match asked.await {
                Ok(_) => return Ok(()),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    /// Sends a request about the repository.
    async fn request(
        &self,
        method: Method,
        path: &str,
        from: Option<u64>,
    ) -> Result<Response, RegistryError> {
        let Endpoint { registry, repository, .. } = &self.endpoint;
        let url = format!("{}://{registry}/v2/{repository}/{path}", self.scheme().await?);
        self.authorized(method, &url, from).await
    }

    /// Sends a request, and once more where the registry wants to know who asks.
    async fn authorized(
        &self,
        method: Method,
        url: &str,
        from: Option<u64>,
    ) -> Result<Response, RegistryError> {
        let response = self.send(method.clone(), url, from).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let Some(challenge) = challenge(&response) else {
            return Err(RegistryError::Challenge { registry: self.registry() });
        };
        let answer = authorization::answer(self, challenge).await?;
        *self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(answer);
        self.send(method, url, from).await
    }

    async fn send(&self, method: Method, url: &str, from: Option<u64>) -> Result<Response, RegistryError> {
        let mut request = self.http.request(method, url).header(ACCEPT, MANIFESTS.join(", "));
        let authorization =
            self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(from) = from.filter(|from| *from > 0) {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        request.send().await.map_err(|error| self.failed(error))
    }

    /// Plain http only where that is allowed and https does not work.
    async fn scheme(&self) -> Result<&'static str, RegistryError> {
        if self.security == Security::Verified {
            return Ok("https");
        }
        let found = self.scheme.get_or_try_init(|| async {
            let url = |scheme| format!("{scheme}://{}/v2/", self.endpoint.registry);
            if self.http.get(url("https")).send().await.is_ok() {
                return Ok("https");
            }
            self.http.get(url("http")).send().await.map(|_| "http").map_err(|error| self.failed(error))
        });
        found.await.copied()
    }

    pub(super) async fn is_secure(&self) -> Result<bool, RegistryError> {
        Ok(self.scheme().await? == "https")
    }

    /// The answer, unless it is a refusal.
    pub(super) async fn accepted(&self, response: Response, name: &str) -> Result<Response, RegistryError> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| pause(value.to_str().ok()?));
        let message = message(response).await;
        let (registry, repository) = (self.registry(), self.endpoint.repository.clone());
        Err(match status {
            StatusCode::UNAUTHORIZED if self.login.is_none() => self.login_needed(),
            StatusCode::UNAUTHORIZED => RegistryError::LoginRefused { registry, repository, message },
            StatusCode::FORBIDDEN => RegistryError::Denied { registry, repository, message },
            StatusCode::NOT_FOUND => RegistryError::NotFound { registry, name: name.to_owned() },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::TooMany { registry, retry_after },
            status => RegistryError::Status { registry, status: status.as_u16(), message, retry_after },
        })
    }

    /// All bytes of an answer, if they are not too many.
    pub(super) async fn read(
        &self,
        mut response: Response,
        name: &str,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(error))? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(RegistryError::TooLarge { registry: self.registry(), name: name.into(), limit });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    pub(super) fn login_needed(&self) -> RegistryError {
        RegistryError::LoginNeeded { registry: self.registry(), repository: self.endpoint.repository.clone() }
    }

    pub(super) fn failed(&self, error: reqwest::Error) -> RegistryError {
        let registry = self.registry();
        let source = HttpError::from(error);
        match () {
            () if source.is_connect() => RegistryError::Unreachable { registry, source },
            () if source.is_timeout() => RegistryError::Stalled { registry, source },
            () if source.is_redirect() => RegistryError::Redirect { registry, source },
            () => RegistryError::Broken { registry, source },
        }
    }

    fn name(&self, reference: &Reference) -> String {
        format!("{}{reference}", self.endpoint.repository)
    }
}

fn manifest_path(reference: &Reference) -> String {
    match reference {
        Reference::Tag(tag) => format!("manifests/{tag}"),
        Reference::Digest(digest) => format!("manifests/{digest}"),
    }
}

/// `bytes 5-9/10`: 5.
fn range_start(response: &Response) -> Option<u64> {
    let value = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// Seconds; a date is rare, and told from a clock that may differ.
fn pause(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

/// What the registry says of its refusal, in a form to be put behind an error.
async fn message(mut response: Response) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        #[serde(default)]
        errors: Vec<Reason>,
        details: Option<String>,
    }
    #[derive(Deserialize)]
    struct Reason {
        #[serde(default)]
        message: String,
    }
    let mut bytes = Vec::new();
    while bytes.len() < MAX_ERROR
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    let Ok(refusal) = serde_json::from_slice::<Refusal>(&bytes) else { return String::new() };
    let mut reasons = refusal.errors.into_iter().map(|reason| reason.message).chain(refusal.details);
    match reasons.find(|reason| !reason.is_empty()) {
        Some(reason) => {
            let reason: String = sanitize(&reason).chars().take(MAX_MESSAGE).collect();
            format!(": {reason}")
        }
        None => String::new(),
    }
}
