//! Names as Podman, Docker and registries take them.

use proptest::prelude::*;

use super::*;

#[test]
fn names_mean_what_podman_takes_them_for() {
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let digested = format!("alpine@{digest}");
    let both = format!("alpine:3@{digest}");
    for (text, first, last) in [
        ("hello", "localhost/hello:latest", "docker.io/library/hello:latest"),
        ("nginx:alpine", "localhost/nginx:alpine", "docker.io/library/nginx:alpine"),
        ("team/app", "localhost/team/app:latest", "docker.io/team/app:latest"),
        ("localhost/hello", "localhost/hello:latest", "localhost/hello:latest"),
        ("docker.io/alpine:3", "docker.io/library/alpine:3", "docker.io/library/alpine:3"),
        ("index.docker.io/a/b", "docker.io/a/b:latest", "docker.io/a/b:latest"),
        ("quay.io/a/b:V1.2-x", "quay.io/a/b:V1.2-x", "quay.io/a/b:V1.2-x"),
        ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
        ("[::1]:5000/x:y", "[::1]:5000/x:y", "[::1]:5000/x:y"),
        ("Host/x", "Host/x:latest", "Host/x:latest"),
        (&digested, &format!("localhost/{digested}"), &format!("docker.io/library/{digested}")),
        (&both, &format!("localhost/{digested}"), &format!("docker.io/library/{digested}")),
    ] {
        let name = text.parse::<ImageName>().unwrap();
        assert_eq!(name.to_string(), text);
        let candidates: Vec<_> =
            name.candidates(&ShortNames::default()).iter().map(ToString::to_string).collect();
        assert_eq!((candidates[0].as_str(), candidates[candidates.len() - 1].as_str()), (first, last));
    }
    assert_eq!(digested.parse::<ImageName>().unwrap().digest(), digest.parse().ok());
    let short_names = ShortNames {
        aliases: [("hello".to_owned(), "quay.io/a/hello".parse().unwrap())].into(),
        search: vec!["one.example".into(), "docker.io".into()],
    };
    for (text, expected) in [
        ("hello:2", &["localhost/hello:2", "quay.io/a/hello:2"][..]),
        ("x", &["localhost/x:latest", "one.example/x:latest", "docker.io/library/x:latest"]),
        ("h.io/hello", &["h.io/hello:latest"]),
    ] {
        let candidates = text.parse::<ImageName>().unwrap().candidates(&short_names);
        assert_eq!(candidates.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{text}");
    }
}

#[test]
fn what_registries_refuse_is_refused() {
    let long = "a".repeat(256);
    for (text, error) in [
        ("", NameError::Empty),
        ("quay.io/", NameError::Empty),
        ("aB", NameError::Uppercase),
        ("a b", NameError::Characters),
        ("é", NameError::Characters),
        ("a..b", NameError::Separator),
        ("a___b", NameError::Separator),
        ("-a", NameError::Separator),
        ("a/", NameError::Separator),
        ("a/../b", NameError::Separator),
        (long.as_str(), NameError::Long),
        ("a:", NameError::Tag),
        ("a:-x", NameError::Tag),
        ("a:x y", NameError::Tag),
        ("a@sha256:00", NameError::Digest),
        ("h.io:0/x", NameError::Registry),
        ("h.io:99999/x", NameError::Registry),
        ("-h.io/x", NameError::Registry),
    ] {
        assert_eq!(text.parse::<ImageName>(), Err(error), "{text}");
    }
    assert!("a--b__c/d.e".parse::<ImageName>().is_ok());
}

/// <https://github.com/distribution/reference/blob/main/reference_test.go> and what people mistype.
#[test]
fn odd_names_are_read_as_docker_reads_them() {
    let hex = "ab".repeat(32);
    let longest = "a/".repeat(127) + "a";
    let tag = "t".repeat(128);
    for (text, registry, repository) in [
        ("host.io:5000/x", Some("host.io:5000"), "x"),
        ("host:5000/x:tag", Some("host:5000"), "x"),
        ("host:5000", None, "host"),
        ("host.io", None, "host.io"),
        ("localhost", None, "localhost"),
        ("[2001:db8::1]/x", Some("[2001:db8::1]"), "x"),
        ("xn--n3h.com/my_image/x", Some("xn--n3h.com"), "my_image/x"),
        ("UPPER/x", Some("UPPER"), "x"),
        ("a/b.c", None, "a/b.c"),
        ("a.b/c/d/e", Some("a.b"), "c/d/e"),
        ("host/x-y--z", None, "host/x-y--z"),
        (&format!("docker.io/{hex}"), Some("docker.io"), &hex),
        (&hex[1..], None, &hex[1..]),
        (&longest, None, &longest),
        (&format!("a:{tag}"), None, "a"),
    ] {
        let name = text.parse::<ImageName>().unwrap();
        assert_eq!((name.registry(), name.repository.as_str()), (registry, repository), "{text}");
        assert_eq!(name.to_string(), text);
    }
    let digest = Digest::of(b"");
    let both = format!("host.io/x:tag@{digest}").parse::<ImageName>().unwrap();
    assert_eq!((both.tag.as_deref(), both.digest), (Some("tag"), Some(digest)));
    for (text, error) in [
        ("a:b:c", NameError::Tag),
        ("host.io:5000:x/a", NameError::Registry),
        ("host.io:/x", NameError::Registry),
        ("host.io:5000/", NameError::Empty),
        ("host..io/x", NameError::Registry),
        ("https://host.io/x", NameError::Registry),
        ("[::1/x", NameError::Registry),
        ("[fe80::1%eth0]/x", NameError::Registry),
        ("::1/x", NameError::Registry),
        ("/x", NameError::Separator),
        ("x/", NameError::Separator),
        ("host.io/x/", NameError::Separator),
        ("host.io//x", NameError::Separator),
        ("_catalog", NameError::Separator),
        ("host.io/_catalog", NameError::Separator),
        ("x_", NameError::Separator),
        ("x.", NameError::Separator),
        ("a._b", NameError::Separator),
        ("host.io/X", NameError::Uppercase),
        ("x@", NameError::Digest),
        ("x@tag", NameError::Digest),
        ("@sha256:00", NameError::Digest),
        (&format!("@{digest}"), NameError::Empty),
        (&format!("x@{digest}:tag"), NameError::Digest),
        (&format!("x@{}", digest.to_string().to_uppercase()), NameError::Digest),
        (&hex, NameError::Id),
        (&format!("a:{tag}t"), NameError::Tag),
        (&format!("{longest}/a"), NameError::Long),
        (&"x".repeat(1 << 20), NameError::Long),
        ("a\nb", NameError::Characters),
        ("a\0", NameError::Characters),
    ] {
        assert_eq!(text.parse::<ImageName>(), Err(error), "{}", &text[..text.len().min(99)]);
        assert!(error.hint().is_some());
    }
}

proptest! {
    #[test]
    fn no_text_panics_and_a_name_is_displayed_as_it_was_written(
        any in "\\PC{0,40}",
        near in "[aB0./:@_\\[\\]-]{0,20}",
    ) {
        for text in [any, near] {
            let Ok(name) = text.parse::<ImageName>() else { continue };
            prop_assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn full_names_survive_json(
        registry in "([a-z]{1,5}\\.io|localhost|\\[::1\\])(:[1-9][0-9]{0,3})?",
        repository in "[a-z0-9]{1,5}(/[a-z]{1,3}(__|[._-])[a-z]{1,3}){0,2}",
        reference in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,9}|@sha256:[0-9a-f]{64})",
    ) {
        let text = format!("{registry}/{repository}{reference}");
        let name: FullName = text.parse().unwrap();
        prop_assert_eq!(name.to_string(), text);
        let json = serde_json::to_string(&name).unwrap();
        prop_assert_eq!(serde_json::from_str::<FullName>(&json).unwrap(), name);
    }
}

#[test]
fn full_names_say_everything() {
    for text in ["hello", "hello:x", "quay.io/x", "../x:y"] {
        assert!(text.parse::<FullName>().is_err(), "{text}");
    }
    let name = "docker.io/library/a:b".parse::<FullName>().unwrap();
    assert_eq!((name.registry(), name.repository()), ("docker.io", "library/a"));
    assert_eq!(name.reference(), &Reference::Tag("b".into()));
}

#[test]
fn hex_words_may_be_ids() {
    let id = |text: &str| text.parse::<ImageName>().unwrap().as_id();
    let digest = Digest::of(b"");
    assert!(id("e3b0").unwrap().matches(&digest));
    assert!(!id("e3b1").unwrap().matches(&digest));
    assert_eq!(id("hello"), None);
    assert_eq!(id("e3b0:latest"), None);
}
