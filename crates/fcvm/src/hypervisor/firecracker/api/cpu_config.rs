//! `/cpu-config`: what the guest sees of the CPU.

use serde_json::{Map, Value};

use super::{ApiError, Client};

impl Client {
    /// Sets a CPU template, before the start: bits of CPUID, registers and capabilities, as
    /// Firecracker's `docs/cpu_templates/cpu-templates.md` describes. Checked at the start.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn put_cpu_config(&self, template: &Map<String, Value>) -> Result<(), ApiError> {
        self.put("/cpu-config", template).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::hypervisor::firecracker::api::testing::{NO_CONTENT, asked};

    #[tokio::test]
    async fn requests_are_frozen() {
        let template = json!({ "kvm_capabilities": ["!56"] });
        let object = template.as_object().unwrap();
        asked(NO_CONTENT, async |client| client.put_cpu_config(object).await.unwrap())
            .await
            .is("PUT /cpu-config", template.clone());
    }
}
