//! Which entry of a file is about a repository.

const DOCKER_HUB: &str = "docker.io";

/// The registry that is meant: Docker Hub goes by several names.
pub(super) fn registry(text: &str) -> &str {
    match text {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        other => other,
    }
}

/// Keys of a repository, most specific first: itself, the namespaces it is in, the registry.
pub(super) fn keys(of: &str, repository: &str) -> Vec<String> {
    let registry = registry(of);
    let mut keys = Vec::new();
    let mut path = repository;
    while !path.is_empty() {
        keys.push(format!("{registry}/{path}"));
        path = path.rsplit_once('/').map_or("", |(before, _)| before);
    }
    keys.push(registry.to_owned());
    keys
}

/// The registry that an old entry is about: `https://index.docker.io/v1/`, `https://host/v1/`,
/// `host/v2`.
pub(super) fn of_url(key: &str) -> &str {
    let text = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    registry(text.split('/').next().unwrap_or_default())
}

/// Whether an entry is of the old form: a URL, or a host with the version of its interface.
pub(super) fn is_url(key: &str) -> bool {
    let path = key.split_once('/').map_or("", |(_, path)| path.trim_end_matches('/'));
    key.contains("://") || matches!(path, "v1" | "v2")
}

/// What credential helpers know a registry by, as Docker tells them.
pub(super) fn server(of: &str) -> &str {
    match registry(of) {
        DOCKER_HUB => "https://index.docker.io/v1/",
        other => other,
    }
}
