//! Where there can be no taps.

use std::fs::File;

use super::{Driver, Egress, Mode, NetworkError, Request};

/// What makes taps.
const DEVICE: &str = "/dev/net/tun";

/// Whether this process can make taps.
#[must_use]
pub fn can_make_taps() -> bool {
    File::options().read(true).write(true).open(DEVICE).is_ok()
}

/// What a machine's network interface can have behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// A tap.
    pub taps: bool,
    /// A socket of passt.
    pub sockets: bool,
}

impl Request {
    /// The same, as far as a hypervisor and this host have it: passt is for where there can be no taps.
    ///
    /// # Errors
    /// Where it cannot be had at all, or passt has no such thing.
    pub fn fitted(self, behind: Behind) -> Result<Self, NetworkError> {
        let Behind { taps, sockets } = behind;
        let driver = match (self.mode, self.driver) {
            (Mode::None, driver) => return Ok(Self { driver, ..self }),
            (Mode::Rootless, Driver::Passt) if sockets => Driver::Passt,
            (Mode::Rootless, Driver::Passt) => {
                return Err(NetworkError::Unsupported {
                    what: "passt needs QEMU".into(),
                    hint: "use --rootless-driver pasta, or --hypervisor qemu",
                });
            }
            (Mode::Bridged | Mode::Rootless, driver) if taps => driver,
            (Mode::Rootless, _) if sockets => Driver::Passt,
            (Mode::Bridged | Mode::Rootless, _) => {
                return Err(NetworkError::Unsupported {
                    what: format!("a network takes a tap, and `{DEVICE}` cannot be opened"),
                    hint: "let users have it: chmod 666 /dev/net/tun; or use --hypervisor qemu with --network rootless, or --network none",
                });
            }
        };
        let fitted = Self { driver, ..self };
        match fitted.beyond_passt() {
            Some(option) if driver == Driver::Passt => Err(NetworkError::Unsupported {
                what: format!("{option} cannot be had with passt, which stands in where there is no tap"),
                hint: "let users have taps: chmod 666 /dev/net/tun",
            }),
            _ => Ok(fitted),
        }
    }

    /// What takes a namespace with rules.
    fn beyond_passt(&self) -> Option<&'static str> {
        let options = [
            ("--egress", self.egress != Egress::Allow),
            ("--forward-localhost", !self.forward_localhost.is_empty()),
            ("--bandwidth", self.bandwidth.is_some()),
        ];
        options.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passt_stands_in_where_it_can() {
        let request = |mode, driver| Request::new(mode, driver);
        let fitted = |mode, driver, sockets, taps| {
            request(mode, driver).fitted(Behind { taps, sockets }).map(|request| request.driver).ok()
        };
        let (pasta, passt) = (Driver::Pasta, Driver::Passt);
        assert_eq!(fitted(Mode::Rootless, pasta, false, true), Some(pasta));
        assert_eq!(fitted(Mode::Rootless, pasta, true, false), Some(passt));
        assert_eq!(fitted(Mode::Rootless, pasta, false, false), None);
        assert_eq!(fitted(Mode::Rootless, passt, false, true), None);
        assert_eq!(fitted(Mode::Bridged, pasta, true, false), None);
        assert_eq!(fitted(Mode::None, pasta, false, false), Some(pasta));
        let limited = Request { bandwidth: Some(1), ..request(Mode::Rootless, pasta) };
        assert!(limited.clone().fitted(Behind { taps: true, sockets: true }).is_ok());
        let error = limited.fitted(Behind { taps: false, sockets: true }).unwrap_err().to_string();
        assert!(error.contains("--bandwidth"), "{error}");
    }
}
