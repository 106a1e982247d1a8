use std::{ffi::OsString, os::unix::fs::PermissionsExt as _, path::PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    file::{AuthFile, Form},
    *,
};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, value: &Value) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, value.to_string()).unwrap();
        path
    }

    fn only(&self, name: &str) -> Credentials {
        Credentials::in_environment(|_| None, Some(self.path(name)), 1000)
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).unwrap()).unwrap()
    }

    /// A helper `test` that keeps what it is told in the file `kept`, and records what it does.
    fn with_helper(&self, file: &str) -> Credentials {
        let script = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
read -r input
echo "$1 $input" >> log
case "$1" in
store) echo "$input" > kept ;;
get) cat kept 2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;
erase) rm -f kept ;;
list) echo '{"a.example":"user"}' ;;
esac
"#;
        self.script("docker-credential-test", script);
        self.searching(file)
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.path(name);
        // Written by another process: a writer of ours, inherited by a child that a parallel
        // test starts, would make the script busy.
        let mut child = std::process::Command::new("tee")
            .arg(&path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn searching(&self, file: &str) -> Credentials {
        let mut search = self.0.path().as_os_str().to_owned();
        search.push(":/usr/bin:/bin");
        let variable = |name: &str| (name == "PATH").then(|| search.clone());
        Credentials::in_environment(variable, Some(self.path(file)), 1000)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

fn auth(user: &str) -> Value {
    json!({ "auth": file::encode(user, &Secret::from("secret".to_owned())) })
}

fn user(credentials: &Credentials, registry: &str, repository: &str) -> Option<String> {
    let login = credentials.find(registry, repository).unwrap()?;
    if let Login::Password { password, .. } = &login {
        assert_eq!(password.reveal(), "secret");
    }
    login.user().map(ToOwned::to_owned)
}

#[test]
fn the_most_specific_key_counts() {
    let place = Place::new();
    place.write(
        "a.json",
        &json!({ "auths": {
        "quay.io": auth("registry"),
        "quay.io/team": auth("team"),
        "quay.io/team/app": auth("app"),
        "https://index.docker.io/v1/": auth("hub"),
        "https://old.example/v1/": auth("old"),
        "https://new.example": auth("new"),
        "bare.example/v2": auth("bare"),
        "host.example:5000": { "username": "plain", "password": "secret" },
        "helped.example": {},
        "token.example": { "auth": auth("someone")["auth"], "identitytoken": "t" },
    }, "planets": 9 }),
    );
    let credentials = place.only("a.json");
    for (registry, repository, expected) in [
        ("quay.io", "x", Some("registry")),
        ("quay.io", "", Some("registry")),
        ("quay.io", "teams/x", Some("registry")),
        ("quay.io", "team/x", Some("team")),
        ("quay.io", "team/app", Some("app")),
        ("quay.io", "team/app/part", Some("app")),
        ("quay.io:443", "team/app", None),
        ("docker.io", "library/alpine", Some("hub")),
        ("registry-1.docker.io", "library/alpine", Some("hub")),
        ("old.example", "x", Some("old")),
        ("new.example", "x", Some("new")),
        ("bare.example", "x", Some("bare")),
        ("host.example:5000", "x", Some("plain")),
        ("host.example", "x", None),
        ("helped.example", "x", None),
    ] {
        assert_eq!(user(&credentials, registry, repository).as_deref(), expected, "{registry}/{repository}");
    }
    let token = credentials.find("token.example", "x").unwrap().unwrap();
    let expected = Login::IdentityToken { user: Some("someone".into()), token: Secret::from("t".to_owned()) };
    assert_eq!(token, expected);
    assert!(!format!("{token:?}").contains("\"t\""), "{token:?}");
}

#[test]
fn files_are_read_in_their_order() {
    let place = Place::new();
    let home = place.path("home");
    let mut variables: Vec<(&str, PathBuf)> = vec![("HOME", home.clone())];
    let found = |variables: &[(&str, PathBuf)]| {
        let variable = |name: &str| -> Option<OsString> {
            variables.iter().find(|(other, _)| *other == name).map(|(_, path)| path.clone().into())
        };
        user(&Credentials::in_environment(variable, None, 1000), "a.example", "x")
    };
    assert_eq!(found(&variables), None);
    place.write("home/.dockercfg", &json!({ "https://a.example/v1/": auth("dockercfg") }));
    assert_eq!(found(&variables).unwrap(), "dockercfg");
    let auths = |user| json!({ "auths": { "a.example": auth(user) } });
    place.write("home/.docker/config.json", &auths("docker"));
    assert_eq!(found(&variables).unwrap(), "docker");
    place.write("docker/config.json", &auths("docker-config"));
    variables.push(("DOCKER_CONFIG", place.path("docker")));
    assert_eq!(found(&variables).unwrap(), "docker-config");
    place.write("home/.config/containers/auth.json", &auths("home"));
    assert_eq!(found(&variables).unwrap(), "home");
    place.write("xdg/containers/auth.json", &auths("xdg"));
    variables.push(("XDG_CONFIG_HOME", place.path("xdg")));
    assert_eq!(found(&variables).unwrap(), "xdg");
    place.write("run/containers/auth.json", &auths("run"));
    variables.push(("XDG_RUNTIME_DIR", place.path("run")));
    assert_eq!(found(&variables).unwrap(), "run");
    variables.push(("REGISTRY_AUTH_FILE", place.write("named", &json!({}))));
    assert_eq!(found(&variables), None, "a file that is named stands alone");
}

#[test]
fn bad_files_are_told() {
    let place = Place::new();
    std::fs::write(place.path("bad.json"), "{").unwrap();
    let error = place.only("bad.json").find("a.example", "x").unwrap_err();
    assert!(matches!(&error, CredentialsError::Json { .. }) && error.hint().is_some(), "{error:?}");
    for bad in ["!", "bm8gY29sb24="] {
        place.write("bad.json", &json!({ "auths": { "a.example": { "auth": bad } } }));
        let error = place.only("bad.json").find("a.example", "x").unwrap_err();
        assert!(matches!(error, CredentialsError::Entry { .. }), "{error:?}");
        assert_eq!(user(&place.only("bad.json"), "b.example", "x"), None);
    }
    std::fs::write(place.path("empty.json"), "").unwrap();
    assert_eq!(user(&place.only("empty.json"), "a.example", "x"), None);
}

#[test]
fn logging_in_and_out_changes_nothing_else() {
    let place = Place::new();
    let before = json!({ "auths": { "b.example": auth("b"), "c.example": { "auth": "", "email": "x" } }, "HttpHeaders": { "A": "b" } });
    place.write("a.json", &before);
    let credentials = place.only("a.json");
    let login = Login::Password { user: "me".into(), password: Secret::from("secret".to_owned()) };
    for (key, registry, repository) in [
        ("a.example", "a.example", "x"),
        ("a.example/team", "a.example", "team/x"),
        ("index.docker.io", "docker.io", "y"),
    ] {
        credentials.store(key, &login).unwrap();
        assert_eq!(credentials.find(registry, repository).unwrap().as_ref(), Some(&login), "{key}");
    }
    let token = Login::IdentityToken { user: Some("me".into()), token: Secret::from("t".to_owned()) };
    credentials.store("t.example", &token).unwrap();
    assert_eq!(credentials.find("t.example", "x").unwrap(), Some(token));
    let mode = std::fs::metadata(place.path("a.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for key in ["a.example", "a.example/team", "docker.io", "t.example"] {
        credentials.remove(key).unwrap();
        let error = credentials.remove(key).unwrap_err();
        assert!(matches!(error, CredentialsError::NotLoggedIn { .. }), "{error:?}");
    }
    assert_eq!(place.json("a.json"), before);
    credentials.remove_all().unwrap();
    assert_eq!(place.json("a.json"), json!({ "auths": {}, "HttpHeaders": { "A": "b" } }));
    let fresh = place.only("new/dir/auth.json");
    fresh.store("a.example", &login).unwrap();
    assert_eq!(place.json("new/dir/auth.json"), json!({ "auths": { "a.example": auth("me") } }));
    assert!(matches!(Credentials::none().store("a", &login), Err(CredentialsError::NoFile)));
}

#[test]
fn many_who_log_in_at_once_all_do() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let place = &place;
            scope.spawn(move || {
                let login =
                    Login::Password { user: "me".into(), password: Secret::from("secret".to_owned()) };
                place.only("a.json").store(&format!("host{number}.example"), &login).unwrap();
            });
        }
    });
    assert_eq!(place.json("a.json")["auths"].as_object().unwrap().len(), 8);
}

#[test]
fn helpers_keep_what_they_are_told() {
    let place = Place::new();
    place.write(
        "a.json",
        &json!({ "credHelpers": { "a.example": "test" }, "auths": { "b.example": auth("b") } }),
    );
    let credentials = place.with_helper("a.json");
    assert_eq!(user(&credentials, "a.example", "x"), None);
    assert_eq!(user(&credentials, "b.example", "x").unwrap(), "b");
    let login = Login::Password { user: "me".into(), password: Secret::from("secret".to_owned()) };
    credentials.store("a.example", &login).unwrap();
    assert_eq!(credentials.find("a.example", "x").unwrap(), Some(login));
    credentials.remove("a.example").unwrap();
    assert!(matches!(credentials.remove("a.example"), Err(CredentialsError::NotLoggedIn { .. })));
    let log = place.log();
    assert!(
        log.starts_with("get a.example\nstore {\"ServerURL\":\"a.example\",\"Username\":\"me\","),
        "{log}"
    );
    assert!(log.contains("erase a.example\n"), "{log}");
    assert_eq!(place.json("a.json")["auths"], json!({ "b.example": auth("b") }));

    // One for all, told of Docker Hub as Docker does.
    place.write("a.json", &json!({ "credsStore": "test" }));
    let token = Login::IdentityToken { user: None, token: Secret::from("t".to_owned()) };
    credentials.store("docker.io", &token).unwrap();
    assert_eq!(credentials.find("docker.io", "library/x").unwrap(), Some(token));
    assert!(place.log().contains("get https://index.docker.io/v1/\n"));
    credentials.remove_all().unwrap();
    assert!(place.log().ends_with("list \nerase a.example\n"), "{}", place.log());
}

#[test]
fn bad_helpers_are_told() {
    let place = Place::new();
    let found = |name: &str| {
        place.write("a.json", &json!({ "credsStore": name }));
        place.searching("a.json").find("a.example", "x")
    };
    for name in ["../evil", "a/b", "a b", "a;b"] {
        let error = found(name).unwrap_err();
        assert!(matches!(error, CredentialsError::HelperName { .. }) && error.hint().is_some(), "{error:?}");
    }
    let error = found("missing").unwrap_err();
    assert_eq!(error.to_string(), "failed to run `docker-credential-missing`");
    assert!(error.hint().unwrap().contains("install `docker-credential-missing`"));
    place.script("docker-credential-fails", "#!/bin/sh\nprintf 'locked\\033[31m'; exit 3\n");
    let error = found("fails").unwrap_err();
    assert_eq!(error.to_string(), "`docker-credential-fails get` failed for `a.example`: locked\\u{1b}[31m");
    place.script("docker-credential-lies", "#!/bin/sh\necho '{\"Secret\":\"hush\"'\n");
    let error = anyhow::Error::from(found("lies").unwrap_err());
    assert!(!format!("{error:#}").contains("hush"), "{error:#}");
    // Without end, and deaf: neither blocks.
    place.script("docker-credential-endless", "#!/bin/sh\nexec yes 2>/dev/null\n");
    assert!(matches!(found("endless"), Err(CredentialsError::HelperFailed { .. })));
    place.script("docker-credential-nothing", "#!/bin/sh\necho '{\"Username\":\"\",\"Secret\":\"\"}'\n");
    assert_eq!(found("nothing").unwrap(), None);
}

proptest! {
    #[test]
    fn no_file_panics(text in "\\PC{0,60}", key in "\\PC{0,20}", auth in "[A-Za-z0-9+/=]{0,20}", registry in "[a-z./:]{0,12}") {
        let place = Place::new();
        let path = place.write("a.json", &json!({ "auths": { key: { "auth": auth } } }));
        AuthFile::read(&path, Form::Auths, None).unwrap().find(&registry, "a/b").ok();
        std::fs::write(&path, text).unwrap();
        AuthFile::read(&path, Form::Legacy, None).ok();
    }

    #[test]
    fn what_is_stored_is_found(user in "[^:\\x00]{1,20}", password in "[^\\x00]{0,20}") {
        let place = Place::new();
        let login = Login::Password { user, password: Secret::from(password) };
        place.only("a.json").store("a.example", &login).unwrap();
        prop_assert_eq!(place.only("a.json").find("a.example", "x").unwrap(), Some(login));
    }
}
