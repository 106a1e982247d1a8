//! What a registry wants to know before it answers.
//!
//! <https://distribution.github.io/distribution/spec/auth/token/> and
//! <https://distribution.github.io/distribution/spec/auth/oauth/>

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{
    Response, Url,
    header::{HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;

use super::{RegistryError, client::Client};
use crate::image::credentials::Login;

const MAX_TOKEN: u64 = 1 << 20;

/// How a registry asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// What is asked for; a token is preferred to a password.
pub(super) fn challenge(response: &Response) -> Option<Challenge> {
    let headers = response.headers().get_all(WWW_AUTHENTICATE).iter();
    best(headers.filter_map(|header| header.to_str().ok()))
}

fn best<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for header in headers {
        for challenge in http_auth::parse_challenges(header).unwrap_or_default() {
            let parameter = |wanted: &str| {
                let found = challenge.params.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
                found.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                let (service, scope) = (parameter("service"), parameter("scope"));
                return Some(Challenge::Bearer { realm, service, scope });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

/// The header that answers a challenge.
pub(super) async fn answer(client: &Client, challenge: Challenge) -> Result<HeaderValue, RegistryError> {
    let header = match (challenge, &client.login) {
        (Challenge::Basic, Some(Login::Password { user, password })) => basic(user, password.reveal()),
        (Challenge::Basic, _) => return Err(client.login_needed()),
        (Challenge::Bearer { realm, service, scope }, login) => {
            let token = token(client, &realm, service, scope, login.as_ref()).await?;
            HeaderValue::try_from(format!("Bearer {token}")).ok()
        }
    };
    let mut header = header.ok_or_else(|| RegistryError::Challenge { registry: client.registry() })?;
    header.set_sensitive(true);
    Ok(header)
}

fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))).ok()
}

async fn token(
    client: &Client,
    realm: &str,
    service: Option<String>,
    scope: Option<String>,
    login: Option<&Login>,
) -> Result<String, RegistryError> {
    let misunderstood = || RegistryError::Challenge { registry: client.registry() };
    let mut url = Url::parse(realm).map_err(|_| misunderstood())?;
    // A password that came by https does not go on in the open.
    if url.scheme() != "https" && client.is_secure().await? {
        return Err(misunderstood());
    }
    let mut query: Vec<_> = service.map(|service| ("service", service)).into_iter().collect();
    let pull =
        || (!client.repository().is_empty()).then(|| format!("repository:{}:pull", client.repository()));
    query.extend(scope.or_else(pull).map(|scope| ("scope", scope)));
    let request = match login {
        Some(Login::IdentityToken { token, .. }) => {
            query.push(("grant_type", "refresh_token".into()));
            query.push(("client_id", "fcvm".into()));
            query.push(("refresh_token", token.reveal().to_owned()));
            client.http().post(url).form(&query)
        }
        login => {
            url.query_pairs_mut().extend_pairs(query);
            let request = client.http().get(url);
            match login {
                Some(Login::Password { user, password }) => request.basic_auth(user, Some(password.reveal())),
                _ => request,
            }
        }
    };
    let response = request.send().await.map_err(|error| client.failed(error))?;
    let response = client.accepted(response, "token").await?;
    let bytes = client.read(response, "token", MAX_TOKEN).await?;
    let no_token = || RegistryError::NoToken { registry: client.registry() };
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| no_token())?;
    token.token.or(token.access_token).filter(|token| !token.is_empty()).ok_or_else(no_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_understood() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let own = |text: Option<&str>| text.map(ToOwned::to_owned);
            Some(Challenge::Bearer { realm: realm.into(), service: own(service), scope: own(scope) })
        };
        for (headers, expected) in [
            (&["Basic realm=\"r\""][..], Some(Challenge::Basic)),
            (
                &["Bearer realm=\"https://a.example/t\",service=\"s\",scope=\"repository:x:pull,push\""],
                bearer("https://a.example/t", Some("s"), Some("repository:x:pull,push")),
            ),
            (
                &["Basic realm=\"r\", bearer Realm=\"https://a.example\""],
                bearer("https://a.example", None, None),
            ),
            (&["Basic realm=\"r\"", "Bearer realm=\"x\""], bearer("x", None, None)),
            (&["Bearer service=\"s\""], None),
            (&["Negotiate"], None),
            (&["", "\"", "Bearer realm=\""], None),
        ] {
            assert_eq!(best(headers.iter().copied()), expected, "{headers:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_us_panic(header in ".*") {
            best([header.as_str()].into_iter());
        }
    }
}
