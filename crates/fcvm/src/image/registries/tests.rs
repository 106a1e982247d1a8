use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::{files::ConfigFile, lookup::registry_of, *};
use crate::hash::Digest;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn merge(texts: &[&str]) -> Result<Registries, RegistriesError> {
    let file = |(index, text): (usize, &&str)| ConfigFile {
        path: format!("/{index}.conf").into(),
        text: (*text).to_owned(),
    };
    config::merge(&texts.iter().enumerate().map(file).collect::<Vec<_>>())
}

/// `host/repository`, with `!` where it is insecure.
fn places(registries: &Registries, name: &str) -> Vec<String> {
    let endpoints = registries.endpoints(&name.parse().unwrap()).unwrap();
    let place = |endpoint: Endpoint| {
        let mark = if endpoint.security == Security::Insecure { "!" } else { "" };
        format!("{mark}{}/{}", endpoint.registry, endpoint.repository)
    };
    endpoints.into_iter().map(place).collect()
}

#[test]
fn without_configuration_a_name_says_its_place() {
    let registries = Registries::default();
    assert_eq!(registries.short_names().search, ["docker.io"]);
    for (name, place) in [
        ("docker.io/library/alpine:3", "registry-1.docker.io/library/alpine"),
        ("quay.io/a/b:c", "quay.io/a/b"),
        ("localhost/a:b", "!localhost/a"),
        ("localhost:5000/a:b", "!localhost:5000/a"),
        ("127.9.0.1:5000/a:b", "!127.9.0.1:5000/a"),
        ("[::1]/a:b", "![::1]/a"),
        ("[::1]:5000/a:b", "![::1]:5000/a"),
        ("128.0.0.1:5000/a:b", "128.0.0.1:5000/a"),
        ("localhost.example/a:b", "localhost.example/a"),
    ] {
        assert_eq!(places(&registries, name), [place], "{name}");
    }
}

#[test]
fn the_longest_prefix_decides_and_mirrors_come_first() {
    let registries = merge(&[r#"
        unqualified-search-registries = ["one.example/", "two.example:5000"]
        short-name-mode = "permissive"
        planets = 9

        [[registry]]
        prefix = "docker.io"
        location = "hub.example:5000/proxy"
        insecure = true
        [[registry.mirror]]
        location = "any.example"
        [[registry.mirror]]
        location = "digest.example/d"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tag.example/t"
        pull-from-mirror = "tag-only"
        insecure = true

        [[registry]]
        prefix = "docker.io/team"
        location = "docker.io/group"

        [[registry]]
        location = "old.example"
        mirror-by-digest-only = true
        mirror = [{ location = "m.example/x" }]

        [[registry]]
        prefix = "*.wild.example"
        insecure = true

        [[registry]]
        prefix = "*.moved.example"
        location = "here.example/all"

        [[registry]]
        prefix = "*.path.example/team"
        location = "here.example/team"

        [[registry]]
        location = "localhost:6000"
        insecure = false

        [[registry]]
        prefix = "one.example/app:v1"
        location = "two.example/app:v2"
        "#])
    .unwrap();
    assert_eq!(registries.short_names().search, ["one.example", "two.example:5000"]);
    let by_digest = format!("docker.io/library/alpine@{DIGEST}");
    let old_by_digest = format!("old.example/a@{DIGEST}");
    for (name, expected) in [
        (
            "docker.io/library/alpine:3",
            &[
                "any.example/library/alpine",
                "!tag.example/t/library/alpine",
                "!hub.example:5000/proxy/library/alpine",
            ][..],
        ),
        (
            &by_digest,
            &[
                "any.example/library/alpine",
                "digest.example/d/library/alpine",
                "!hub.example:5000/proxy/library/alpine",
            ],
        ),
        ("docker.io/team/a:b", &["registry-1.docker.io/group/a"]),
        (
            "docker.io/teams/a:b",
            &["any.example/teams/a", "!tag.example/t/teams/a", "!hub.example:5000/proxy/teams/a"],
        ),
        ("old.example/a:b", &["old.example/a"]),
        (&old_by_digest, &["m.example/x/a", "old.example/a"]),
        ("old.example:5000/a:b", &["old.example:5000/a"]),
        ("a.b.wild.example/c:d", &["!a.b.wild.example/c"]),
        ("a.wild.example:5000/c:d", &["!a.wild.example:5000/c"]),
        ("wild.example/c:d", &["wild.example/c"]),
        ("x.example/a.wild.example/c:d", &["x.example/a.wild.example/c"]),
        ("a.moved.example/c:d", &["here.example/all/c"]),
        ("a.moved.example.moved.example:5000/c:d", &["here.example/all/c"]),
        ("a.path.example/team/c:d", &["here.example/team/c"]),
        ("a.path.example/teams/c:d", &["a.path.example/teams/c"]),
        ("localhost:6000/c:d", &["localhost:6000/c"]),
        ("one.example/app:v1", &["two.example/app"]),
        ("one.example/app:v11", &["one.example/app"]),
    ] {
        assert_eq!(places(&registries, name), expected, "{name}");
    }
}

#[test]
fn a_login_is_for_the_registry_itself() {
    let registries = merge(&[
        "[[registry]]\nlocation = 'a.example'\ninsecure = true\nmirror = [{ location = 'm.example' }]\n\
        [[registry]]\nlocation = 'b.example/team'\ninsecure = true",
    ])
    .unwrap();
    for (registry, host, security) in [
        ("a.example", "a.example", Security::Insecure),
        ("b.example", "b.example", Security::Verified),
        ("docker.io", "registry-1.docker.io", Security::Verified),
        ("localhost:5000", "localhost:5000", Security::Insecure),
    ] {
        let expected = Endpoint { registry: host.into(), repository: String::new(), security };
        assert_eq!(registries.endpoint_of(registry), expected);
    }
}

#[test]
fn later_files_win() {
    let registries = merge(&[
        "unqualified-search-registries = ['a.example']\n[aliases]\nx = 'a.example/x'\ny = 'a.example/y'\nz = 'a.example/z'",
        "[aliases]\ny = 'b.example/y'\nz = ''\n[[registry]]\nlocation = 'a.example'\ninsecure = true",
        "[[registry]]\nlocation = 'a.example'",
    ])
    .unwrap();
    let short_names = registries.short_names();
    assert_eq!(short_names.search, ["a.example"]);
    let aliases: Vec<_> =
        short_names.aliases.iter().map(|(name, target)| format!("{name} {target}")).collect();
    assert_eq!(aliases, ["x a.example/x", "y b.example/y"]);
    assert_eq!(places(&registries, "a.example/x:y"), ["a.example/x"]);
    // Nothing to be searched is a choice too.
    assert!(merge(&["unqualified-search-registries = []"]).unwrap().short_names().search.is_empty());
}

#[test]
fn what_is_wrong_is_said_with_the_file() {
    for (text, expected) in [
        ("x = ", "`/0.conf` is not a configuration of registries"),
        ("registry = 3", "`/0.conf` is not a configuration of registries"),
        (
            "[[registry]]\nlocation = 'a.example'\nmirror = [{ location = 'm', pull-from-mirror = 'x' }]",
            "`/0.conf` is not a configuration of registries",
        ),
        (
            "[registries.search]\nregistries = ['docker.io']",
            "`/0.conf` is a configuration of registries in the form of version 1",
        ),
        ("[[registry]]\ninsecure = true", "a [[registry]] in `/0.conf` has neither `prefix` nor `location`"),
        (
            "[[registry]]\nlocation = 'https://a.example'",
            "`https://a.example` in `/0.conf` is not the beginning of an image's name",
        ),
        (
            "[[registry]]\nlocation = 'a.example'\nmirror = [{ location = '' }]",
            "`` in `/0.conf` is not the beginning of an image's name",
        ),
        (
            "unqualified-search-registries = ['a.example/b']",
            "`a.example/b` in `/0.conf` is not a registry to be searched",
        ),
        ("[aliases]\nx = 'a.example/x:1'", "`/0.conf` has an invalid alias for `x`"),
        ("[aliases]\n'b.example/x' = 'a.example/x'", "`/0.conf` has an invalid alias for `b.example/x`"),
    ] {
        let error = merge(&[text]).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().is_some(), "{text}");
    }
    let registries = merge(&[
        "[[registry]]\nlocation = 'a.example/b'\nblocked = true\n[[registry]]\nprefix = 'c.example'\nlocation = 'c'",
    ])
    .unwrap();
    for (name, expected) in [
        ("a.example/b/c:d", "registry `a.example/b` is blocked by `/0.conf`"),
        (
            "c.example/x:y",
            "with the location `c` that `/0.conf` gives for it, `c.example/x:y` is no image's name",
        ),
    ] {
        let error = registries.endpoints(&name.parse().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().is_some());
    }
    assert_eq!(places(&registries, "a.example/bc:d"), ["a.example/bc"]);
}

/// Files of a test, and what they give.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, path: &str, search: &str) -> PathBuf {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(
            &path,
            format!("unqualified-search-registries = ['{search}']\n[aliases]\n{search} = 'a.example/a'\n"),
        )
        .unwrap();
        path
    }

    fn files(&self, variables: &[(&str, &Path)]) -> RegistryFiles {
        let home = self.0.path().join("home");
        let variable = |name: &str| {
            let own = (name == "HOME").then_some(home.as_path());
            let found = variables.iter().find(|(other, _)| *other == name).map(|(_, path)| *path);
            found.or(own).map(|path| path.as_os_str().to_owned())
        };
        RegistryFiles::in_environment(variable, &self.0.path().join("etc"), 1000)
    }

    /// What is searched, and the names of all aliases: those of the files that were read.
    fn read(&self, variables: &[(&str, &Path)]) -> (String, String) {
        let registries = self.files(variables).load().unwrap();
        let names = registries.short_names();
        (names.search.concat(), names.aliases.keys().cloned().collect::<Vec<_>>().join(" "))
    }
}

#[test]
fn files_are_found_in_their_order() {
    let place = Place::new();
    let said = |search: &str, aliases: &str| (search.to_owned(), aliases.to_owned());
    assert_eq!(place.read(&[]), said("docker.io", ""));
    place.write("etc/registries.conf", "system");
    assert_eq!(place.read(&[]), said("system", "system"));
    place.write("etc/registries.conf.d/b.conf", "systemb");
    place.write("etc/registries.conf.d/a.conf", "systema");
    place.write("etc/registries.conf.d/c.conf.bak", "ignored");
    std::fs::create_dir(place.0.path().join("etc/registries.conf.d/d.conf")).unwrap();
    assert_eq!(place.read(&[]), said("systemb", "system systema systemb"));
    place.write("home/.config/containers/registries.conf.d/a.conf", "usera");
    assert_eq!(place.read(&[]), said("usera", "system systema systemb usera"));
    // A user who has a configuration wants nothing of the system's.
    place.write("home/.config/containers/registries.conf", "user");
    assert_eq!(place.read(&[]), said("usera", "user usera"));
    let elsewhere = place.0.path().join("config");
    place.write("config/containers/registries.conf", "xdg");
    assert_eq!(place.read(&[("XDG_CONFIG_HOME", &elsewhere)]), said("xdg", "xdg"));

    let named = place.write("named", "named");
    let last = place.write("last", "last");
    let named = ("CONTAINERS_REGISTRIES_CONF", named.as_path());
    assert_eq!(place.read(&[named]), said("usera", "named systema systemb usera"));
    let both = [named, ("CONTAINERS_REGISTRIES_CONF_OVERRIDE", last.as_path())];
    assert_eq!(place.read(&both), said("last", "last named systema systemb usera"));
    let none = [("CONTAINERS_REGISTRIES_CONF", Path::new("/dev/null"))];
    assert_eq!(place.read(&none), said("usera", "systema systemb usera"));

    place.write("home/.cache/containers/short-name-aliases.conf", "recorded");
    assert_eq!(place.read(&[]).1, "recorded user usera");
    let cache = place.0.path().join("cache");
    assert_eq!(place.read(&[("XDG_CACHE_HOME", &cache)]).1, "user usera");
    assert_eq!(RegistryFiles::none().load().unwrap().short_names(), &ShortNames::default());
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let place = Place::new();
    for name in ["CONTAINERS_REGISTRIES_CONF", "CONTAINERS_REGISTRIES_CONF_OVERRIDE"] {
        let error = place.files(&[(name, Path::new("/nonexistent"))]).load().unwrap_err();
        assert_eq!(error.to_string(), "failed to read `/nonexistent`");
        assert!(error.hint().is_some());
    }
    let large = place.0.path().join("large");
    std::fs::write(&large, vec![b'\n'; (1 << 20) + 1]).unwrap();
    let error = place.files(&[("CONTAINERS_REGISTRIES_CONF", &large)]).load().unwrap_err();
    assert!(matches!(error, RegistriesError::TooLarge { .. }), "{error:?}");
}

/// Hosts and paths that are often the beginning of one another.
const PLACE: &str = "(\\*\\.)?(a|b)(\\.(a|b)){0,2}(:1)?(/(a|ab|b)){0,2}(:t)?";

proptest! {
    #[test]
    fn any_table_gives_an_answer_and_the_longest_prefix(
        tables in prop::collection::vec((PLACE, prop::option::of(PLACE), PLACE), 0..8),
        host in "(a|b)(\\.(a|b)){1,2}(:1)?",
        repository in "(a|ab|b)(/(a|ab|b)){0,2}",
        digest in any::<bool>(),
    ) {
        let mut text = String::new();
        for (prefix, location, mirror) in &tables {
            let location = location.as_ref().map_or(String::new(), |text| format!("location = '{text}'"));
            text += &format!("[[registry]]\nprefix = '{prefix}'\n{location}\nmirror = [{{ location = '{mirror}' }}]\n");
        }
        let registries = merge(&[&text]).unwrap();
        let reference = if digest { format!("@{}", Digest::of(b"")) } else { ":t".to_owned() };
        let name: FullName = format!("{host}/{repository}{reference}").parse().unwrap();
        if let Ok(endpoints) = registries.endpoints(&name) {
            prop_assert!(!endpoints.is_empty() && endpoints.len() <= 2);
        }
        // The rule in other words: cut pieces off the name's end until a prefix is left.
        let full = name.to_string();
        let ends = full.char_indices().filter(|(_, c)| "/:@".contains(*c)).map(|(at, _)| at);
        let slash = full.find('/').unwrap();
        let named = |prefix: &str| {
            let is_port = |at: usize| at < slash && full[at..].starts_with(':');
            ends.clone().chain([full.len()]).any(|at| !is_port(at) && full[..at] == *prefix)
        };
        let wild = |prefix: &str| prefix.strip_prefix('*').is_some_and(|domain| {
            let begins_in_host = |at: usize| at - domain.len() < slash;
            ends.clone().chain([full.len()]).any(|at| full[..at].ends_with(domain) && begins_in_host(at))
        });
        let longest = tables.iter().map(|(prefix, ..)| prefix)
            .filter(|prefix| named(prefix) || wild(prefix)).map(String::len).max();
        prop_assert_eq!(registry_of(&registries.registries, &name).map(|found| found.prefix.len()), longest);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,80}", prefix in "\\PC{0,12}", location in "\\PC{0,12}") {
        if let Err(error) = merge(&[&text]) {
            prop_assert!(error.hint().is_some());
        }
        let table = toml::Table::from_iter([("prefix".into(), prefix.into()), ("location".into(), location.into())]);
        let config = toml::Table::from_iter([("registry".into(), vec![toml::Value::Table(table)].into())]);
        if let Ok(registries) = merge(&[&toml::to_string(&config).unwrap()]) {
            registries.endpoints(&"docker.io/library/a:b".parse().unwrap()).ok();
        }
    }
}
