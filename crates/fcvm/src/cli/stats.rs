//! `fcvm stats`.

use std::time::Duration;

/// Show what VMs use of the host, again and again.
///
/// CPU is in percent of one CPU: at first since the VM's start, then since the last measurement.
/// Memory is that of the hypervisor, the guest's among it: resident, proportional (shared pages in
/// parts) and private. Of a VM with --balloon, the guest tells what is available in it and what it has
/// given back. Disk is what was read from and written to the host's storage. Network is what the guest has
/// received and sent.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids or beginnings of ids [default: all that run]
    #[arg(value_name = "VM")]
    pub vms: Vec<String>,
    /// Also VMs that do not run
    #[arg(short, long, conflicts_with = "vms")]
    pub all: bool,
    /// Measure once
    #[arg(long)]
    pub no_stream: bool,
    /// Print JSON: an array for each measurement, in a line
    #[arg(long)]
    pub json: bool,
    /// How long to wait between measurements
    #[arg(short, long, default_value = "5", value_name = "SECONDS", value_parser = seconds)]
    pub interval: Duration,
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=86400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or("an interval is a number of seconds, from 0.1 to 86400")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_number_of_seconds() {
        assert_eq!(seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["", "0", "-1", "nan", "inf", "1e9", "5s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
