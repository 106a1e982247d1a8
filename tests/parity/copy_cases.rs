//! Copies between container and host: which names lead where.

/// Files of the host, below `in`: name, content.
pub(crate) const FILES: [(&str, &str); 3] = [("f", "F"), ("d/g", "G"), ("d/sub/h", "H")];

/// Makes the same in the container.
pub(crate) const SCRIPT: &str = "mkdir -p /there/deep /to /srv/rel; echo A > /there/a; echo B > /there/deep/b; \
     chmod 640 /there/a; chmod 700 /there/deep; ln -s a /there/link; echo R > /srv/rel/r; touch /ready; \
     trap 'exit 0' TERM; while :; do sleep 1; done";

/// Source and destination, one after the other; `OUT` is a directory of the host that each engine
/// has for itself.
pub(crate) const CASES: [(&str, &str); 22] = [
    ("vm:/there", "OUT/new"),
    ("vm:/there", "OUT"),
    ("vm:/there/.", "OUT"),
    ("vm:/there/", "OUT/slash"),
    ("vm:/there/a", "OUT/x"),
    ("vm:/there/a", "OUT/slash"),
    ("vm:/there/a", "OUT/none/"),
    ("vm:/there/deep/.", "OUT/contents"),
    ("vm:/there", "OUT/x"),
    ("vm:/there", "OUT/no/where"),
    ("vm:/nosuch", "OUT/nosuch"),
    ("vm:rel/r", "OUT/relative"),
    ("in/f", "vm:/to"),
    ("in/f", "vm:/to/named"),
    ("in/d", "vm:/to"),
    ("in/d/.", "vm:/to"),
    ("in/d", "vm:/fresh"),
    ("in/d", "vm:/no/where/at/all"),
    ("in/d", "vm:/there/a"),
    ("in/f", "vm:rel"),
    ("in/nosuch", "vm:/to"),
    ("in/f", "vm:/to/none/"),
];

/// What has come to the container.
pub(crate) const SHOW: &str = "for f in $(find /to /fresh /there /srv | sort); do \
     echo $f $(stat -c '%a %u %g' $f) $(test -f $f && cat $f); done";
