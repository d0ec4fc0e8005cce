//! The processor of this machine.

/// Its model as the system names it; where the system gives no name, what is known of it.
pub fn model() -> String {
    named(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

/// The model in the text of `/proc/cpuinfo`. ARM processors have numbers in place of a name.
fn named(information: &str) -> String {
    let field = |name: &str| {
        let of = |line: &str| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim().to_owned());
        information.lines().find_map(of).filter(|value| !value.is_empty())
    };
    let numbers = || Some(format!("implementer {}, part {}", field("CPU implementer")?, field("CPU part")?));
    let architecture = std::env::consts::ARCH;
    field("model name")
        .or_else(|| Some(format!("{architecture}, {}", numbers()?)))
        .unwrap_or_else(|| architecture.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_the_name_that_the_system_gives_it_or_its_numbers() {
        let x86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 143\nmodel name\t: Some CPU @ 2.00GHz\nmodel name\t: Other\n";
        assert_eq!(named(x86), "Some CPU @ 2.00GHz");
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n";
        assert_eq!(named(arm), format!("{}, implementer 0x41, part 0xd4f", std::env::consts::ARCH));
        for text in ["", "model name\t:\n"] {
            assert_eq!(named(text), std::env::consts::ARCH, "{text:?}");
        }
        assert!(!model().is_empty());
    }
}
