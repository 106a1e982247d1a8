//! Random operations against a model of a tree.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::{testing::*, *};
use crate::hash::Digest;

#[derive(Debug, Clone)]
enum Step {
    Mkdir(String, u16),
    File(String, Vec<(u8, u8)>),
    Symlink(String, usize),
    Hardlink(String, String),
    Remove(String),
    Children(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Modelled {
    Directory(u16),
    /// An index into the contents, shared by hard links.
    File(usize),
    Symlink(usize),
}

/// Paths of up to three components out of few names, so that they meet.
fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[abc]|long-long-long-name", 1..4).prop_map(|names| names.join("/"))
}

fn step() -> impl Strategy<Value = Step> {
    let runs = prop::collection::vec((0..3_u8, 1..40_u8), 0..12);
    prop_oneof![
        2 => (path(), 0..0o7777_u16).prop_map(|(path, mode)| Step::Mkdir(path, mode)),
        4 => (path(), runs).prop_map(|(path, runs)| Step::File(path, runs)),
        1 => (path(), 1..200_usize).prop_map(|(path, length)| Step::Symlink(path, length)),
        2 => (path(), path()).prop_map(|(path, target)| Step::Hardlink(path, target)),
        1 => path().prop_map(Step::Remove),
        1 => path().prop_map(Step::Children),
    ]
}

/// Runs of kibibytes of the same byte: zeros make holes.
fn content(runs: &[(u8, u8)]) -> Vec<u8> {
    runs.iter().flat_map(|(byte, length)| vec![*byte; usize::from(*length) * 1000]).collect()
}

#[derive(Default)]
struct Model {
    tree: BTreeMap<String, Modelled>,
    contents: Vec<Vec<u8>>,
}

impl Model {
    /// Makes parents; false where something is in the way. Links lead nowhere that exists.
    fn parents(&mut self, path: &str) -> bool {
        for (slash, _) in path.match_indices('/') {
            match self.tree.get(&path[..slash]) {
                None => {
                    self.tree.insert(path[..slash].into(), Modelled::Directory(0o755));
                }
                Some(Modelled::Directory(_)) => {}
                Some(_) => return false,
            }
        }
        true
    }

    fn remove_children(&mut self, path: &str) {
        self.tree.retain(|other, _| !other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')));
    }

    fn remove(&mut self, path: &str) {
        self.remove_children(path);
        self.tree.remove(path);
    }

    fn put(&mut self, path: &str, what: Modelled) {
        self.remove(path);
        self.tree.insert(path.into(), what);
    }
}

/// A step, in both; steps that pass symbolic links are left out.
fn apply(model: &mut Model, writer: &mut Ext4Writer, step: &Step) {
    let path = match step {
        Step::Mkdir(path, _)
        | Step::File(path, _)
        | Step::Symlink(path, _)
        | Step::Hardlink(path, _)
        | Step::Remove(path)
        | Step::Children(path) => path,
    };
    let passes = |path: &str| {
        path.match_indices('/')
            .any(|(slash, _)| matches!(model.tree.get(&path[..slash]), Some(Modelled::Symlink(_))))
    };
    if passes(path) || matches!(step, Step::Hardlink(_, target) if passes(target)) {
        return;
    }
    let bytes = path.as_bytes();
    match step {
        Step::Mkdir(_, mode) => {
            let made = writer.mkdir(bytes, &Metadata::root(*mode)).is_ok();
            assert_eq!(made, model.parents(path));
            if made {
                if !matches!(model.tree.get(path), Some(Modelled::Directory(_))) {
                    model.remove(path);
                }
                model.tree.insert(path.clone(), Modelled::Directory(*mode));
            }
        }
        Step::File(_, runs) => {
            let content = content(runs);
            let size = content.len() as u64;
            let made = writer.file(bytes, &Metadata::root(0o644), size, &mut &content[..]).is_ok();
            assert_eq!(made, model.parents(path));
            if made {
                model.put(path, Modelled::File(model.contents.len()));
                model.contents.push(content);
            }
        }
        Step::Symlink(_, length) => {
            let made = writer.symlink(bytes, &Metadata::root(0o777), "t".repeat(*length).as_bytes()).is_ok();
            assert_eq!(made, model.parents(path));
            if made {
                model.put(path, Modelled::Symlink(*length));
            }
        }
        Step::Hardlink(_, target) => {
            let linked = writer.hardlink(bytes, target.as_bytes()).is_ok();
            let target = model.tree.get(target).cloned();
            let target = target.filter(|target| !matches!(target, Modelled::Directory(_)));
            let expected = target.is_some() && model.parents(path);
            assert_eq!(linked, expected);
            if let Some(target) = target.filter(|_| linked) {
                model.put(path, target);
            }
        }
        Step::Remove(_) => {
            assert_eq!(writer.remove(bytes).unwrap(), model.tree.contains_key(path));
            model.remove(path);
        }
        Step::Children(_) => {
            let directory = matches!(model.tree.get(path), Some(Modelled::Directory(_)));
            assert_eq!(writer.remove_children(bytes).unwrap(), directory);
            if directory {
                model.remove_children(path);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_agree_with_a_model(steps in prop::collection::vec(step(), 1..80)) {
        let mut model = Model::default();
        let (image, _) = build(SizePolicy::Fit, |writer| {
            for step in &steps {
                apply(&mut model, writer, step);
            }
        });
        let Some(mount) = Mount::new(&image.path) else { return Ok(()) };
        let listed: BTreeMap<_, _> = list(&mount.path)
            .into_iter()
            .filter(|(path, _)| !path.is_empty())
            .map(|(path, file)| (String::from_utf8(path).unwrap(), (file.mode, file.content)))
            .collect();
        let expected: BTreeMap<_, _> = model
            .tree
            .iter()
            .map(|(path, what)| {
                let file = match what {
                    Modelled::Directory(mode) => (0o040_000 | u32::from(*mode), String::new()),
                    Modelled::File(index) => (0o100_644, Digest::of(&model.contents[*index]).short()),
                    Modelled::Symlink(length) => (0o120_777, "t".repeat(*length)),
                };
                (path.clone(), file)
            })
            .collect();
        prop_assert_eq!(listed, expected);
    }
}
