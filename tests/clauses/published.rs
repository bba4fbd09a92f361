//! The published statements: the numbers of Appendix B of both OASIS Standards, section by section.
//! Does not know their text.
//!
//! MQTT 3.1.1 of 29 October 2014 has 141 (two of them are misprinted there, as `MQTT-3.1.2.7` and
//! `MQTT-3-8.3-4`, so that a search for the regular form finds 139), without a gap. MQTT 5.0 of
//! 7 March 2019 has 251; there is no `MQTT-2.2.1-1`, each other section counts from 1 without a
//! gap. Its Appendix B misprints `MQTT-3.3.1-10` (what is said of a subscription that exists holds
//! for one that does not, and the reverse); the body of the standard is what counts.

use super::table::Edition;

/// Sections and the number of their statements.
const V3_1_1: &[(&str, u8)] = &[
    ("1.5.3", 3),
    ("2.2.2", 2),
    ("2.3.1", 7),
    ("3.1.0", 2),
    ("3.1.2", 24),
    ("3.1.3", 11),
    ("3.1.4", 5),
    ("3.2.0", 1),
    ("3.2.2", 6),
    ("3.3.1", 12),
    ("3.3.2", 3),
    ("3.3.4", 1),
    ("3.3.5", 2),
    ("3.6.1", 1),
    ("3.8.1", 1),
    ("3.8.3", 4),
    ("3.8.4", 6),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.12.4", 1),
    ("3.14.1", 1),
    ("3.14.4", 3),
    ("4.1.0", 2),
    ("4.3.1", 1),
    ("4.3.2", 2),
    ("4.3.3", 2),
    ("4.4.0", 1),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.1", 3),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.0", 2),
    ("6.0.0", 4),
    ("7.0.0", 2),
    ("7.1.1", 1),
    ("7.1.2", 1),
];

const V5_0: &[(&str, u8)] = &[
    ("1.5.4", 3),
    ("1.5.5", 1),
    ("1.5.7", 1),
    ("2.1.3", 1),
    ("2.2.1", 6),
    ("2.2.2", 1),
    ("3.1.0", 2),
    ("3.1.2", 30),
    ("3.1.3", 12),
    ("3.1.4", 6),
    ("3.2.0", 2),
    ("3.2.2", 22),
    ("3.3.1", 13),
    ("3.3.2", 20),
    ("3.3.4", 10),
    ("3.4.2", 3),
    ("3.5.2", 3),
    ("3.6.1", 1),
    ("3.6.2", 3),
    ("3.7.2", 3),
    ("3.8.1", 1),
    ("3.8.3", 5),
    ("3.8.4", 8),
    ("3.9.2", 2),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.11.2", 2),
    ("3.11.3", 2),
    ("3.12.4", 1),
    ("3.14.0", 1),
    ("3.14.1", 1),
    ("3.14.2", 4),
    ("3.14.4", 3),
    ("3.15.1", 1),
    ("3.15.2", 3),
    ("4.1.0", 2),
    ("4.2.0", 1),
    ("4.3.1", 1),
    ("4.3.2", 5),
    ("4.3.3", 13),
    ("4.4.0", 2),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.0", 1),
    ("4.7.1", 2),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.2", 6),
    ("4.9.0", 3),
    ("4.12.0", 7),
    ("4.12.1", 2),
    ("4.13.1", 1),
    ("4.13.2", 1),
    ("6.0.0", 4),
];

/// Numbers that were never assigned.
const GAPS: &[(Edition, &str)] = &[(Edition::V5_0, "MQTT-2.2.1-1")];

/// Returns each statement's identifier, as in `MQTT-3.1.0-1`.
pub(crate) fn ids(edition: Edition) -> impl Iterator<Item = String> {
    let sections = match edition {
        Edition::V3_1_1 => V3_1_1,
        Edition::V5_0 => V5_0,
    };
    let all = sections
        .iter()
        .flat_map(|(section, count)| (1..=*count).map(move |n| format!("MQTT-{section}-{n}")));
    all.filter(move |id| !GAPS.contains(&(edition, id.as_str())))
}
