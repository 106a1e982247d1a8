//! `--env` and `--env-file`, as Podman reads them.

use std::{collections::BTreeMap, io, path::PathBuf};

/// An environment option cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::commands) enum EnvironmentError {
    /// The file cannot be read.
    #[error("failed to read environment file `{path}`")]
    Read { path: PathBuf, source: io::Error },
    /// A line or option has no name.
    #[error("`{text}` sets no variable: it has no name")]
    NoName { text: String },
}

/// The container's variables: files first, then options, the last of a name winning.
pub(in crate::commands) fn collect(
    files: &[PathBuf],
    options: &[String],
    host: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let mut variables = BTreeMap::new();
    for path in files {
        let text = std::fs::read_to_string(path)
            .map_err(|source| EnvironmentError::Read { path: path.clone(), source })?;
        for line in text.lines().map(trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            set(&mut variables, line, host)?;
        }
    }
    for option in options {
        set(&mut variables, option, host)?;
    }
    Ok(variables.into_iter().collect())
}

/// The variables by which programs are told of proxies.
const PROXIES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
];

/// The host's proxies, but for those of which user or image say something else.
pub(in crate::commands) fn proxies(
    host: &BTreeMap<String, String>,
    given: &[(String, String)],
    image: &[String],
) -> Vec<(String, String)> {
    let of_image = |name: &str| image.iter().any(|text| text.split('=').next() == Some(name));
    let of_user = |name: &str| given.iter().any(|(given, _)| given == name);
    let unset = PROXIES.into_iter().filter(|name| !of_user(name) && !of_image(name));
    unset.filter_map(|name| Some((name.to_owned(), host.get(name)?.clone()))).collect()
}

/// Blanks before a name count for nothing, all others do.
fn trim(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// `NAME=VALUE`, `NAME` for the host's value, `PREFIX*` for all of the host's that begin so.
fn set(
    variables: &mut BTreeMap<String, String>,
    text: &str,
    host: &BTreeMap<String, String>,
) -> Result<(), EnvironmentError> {
    let no_name = || EnvironmentError::NoName { text: text.to_owned() };
    let trimmed = trim(text);
    match trimmed.split_once('=') {
        Some(("", _)) => return Err(no_name()),
        Some((name, value)) => drop(variables.insert(name.to_owned(), value.to_owned())),
        None => match trimmed.strip_suffix('*') {
            Some(prefix) => {
                let matching = host.iter().filter(|(name, _)| name.starts_with(prefix));
                variables.extend(matching.map(|(name, value)| (name.clone(), value.clone())));
            }
            None if trimmed.is_empty() => return Err(no_name()),
            None => variables.extend(host.get(trimmed).map(|value| (trimmed.to_owned(), value.clone()))),
        },
    }
    Ok(())
}

/// This process's variables, those that are text.
pub(in crate::commands) fn host() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        variables.iter().map(|&(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn files_come_first_and_the_last_wins() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# comment\n\n  A=1\nB=x=y # not a comment\nHOST\nMISSING\nQ=\"q\"\n")
            .unwrap();
        let host = BTreeMap::from([
            ("HOST".into(), "h".into()),
            ("LC_A".into(), "1".into()),
            ("LC_B".into(), "2".into()),
        ]);
        let options = ["A=2", "LC_*", "EMPTY=", " \tBLANK= b"].map(String::from);
        let all = collect(&[file.path().to_owned()], &options, &host).unwrap();
        let expected = [
            ("A", "2"),
            ("B", "x=y # not a comment"),
            ("BLANK", " b"),
            ("EMPTY", ""),
            ("HOST", "h"),
            ("LC_A", "1"),
            ("LC_B", "2"),
            ("Q", "\"q\""),
        ];
        assert_eq!(all, pairs(&expected));
    }

    #[test]
    fn proxies_are_the_hosts_unless_user_or_image_say_otherwise() {
        let host =
            ["http_proxy", "HTTPS_PROXY", "no_proxy", "OTHER"].map(|name| (name.to_owned(), "h".to_owned()));
        let host = BTreeMap::from(host);
        let given = pairs(&[("http_proxy", "")]);
        assert_eq!(proxies(&host, &given, &["no_proxy=x".into()]), pairs(&[("HTTPS_PROXY", "h")]));
        let all = [("http_proxy", "h"), ("no_proxy", "h"), ("HTTPS_PROXY", "h")];
        assert_eq!(proxies(&host, &[], &[]), pairs(&all));
    }

    #[test]
    fn a_variable_has_a_name_and_a_file_is_there() {
        let none = BTreeMap::new();
        for bad in ["", "=x", " =x"] {
            assert!(collect(&[], &[bad.to_owned()], &none).is_err(), "{bad:?}");
        }
        let error = collect(&["/does/not/exist".into()], &[], &none).unwrap_err();
        assert_eq!(error.to_string(), "failed to read environment file `/does/not/exist`");
    }
}
