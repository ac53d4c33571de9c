//! Quantities for people: three digits or so, and a unit, by the name of the measure.
//!
//! All values of one plot have one unit, that of the largest, so that they can be compared without arithmetic.

/// What a measure counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quantity {
    /// Time; the value is in seconds when multiplied with the factor, a power of ten with this exponent.
    Time(i32),
    /// Bytes.
    Bytes,
    /// Operations per second.
    Rate,
    /// Bytes per second.
    Bandwidth,
    /// A number.
    Plain,
}

/// The quantity of a measure, from its name: the unit is at its end.
pub fn quantity(measure: &str) -> Quantity {
    let measure = measure.split('|').next().unwrap_or(measure);
    match measure {
        "wall" | "user" | "system" | "cpu" => return Quantity::Time(0),
        "peak" => return Quantity::Bytes,
        _ => {}
    }
    let has = |ending: &str| measure.ends_with(ending);
    match () {
        () if has("bytes_per_s") => Quantity::Bandwidth,
        () if has("_per_s") => Quantity::Rate,
        () if has("_ns") || has("ns_per_object") => Quantity::Time(-9),
        () if has("_us") => Quantity::Time(-6),
        () if has("_s") => Quantity::Time(0),
        () if has("_bytes") => Quantity::Bytes,
        () => Quantity::Plain,
    }
}

/// A unit, and by what a value is multiplied to be told in it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Unit {
    /// Behind the number; may be empty.
    pub name: &'static str,
    /// From the measure's own unit.
    pub scale: f64,
}

impl Unit {
    /// The unit for a measure of which `largest` is the largest value.
    pub fn of(measure: &str, largest: f64) -> Unit {
        let steps: &[(&'static str, f64)] = match quantity(measure) {
            Quantity::Time(_) => &[("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)],
            Quantity::Bytes => &[("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)],
            Quantity::Rate => &[("M/s", 1e6), ("k/s", 1e3), ("/s", 1.0)],
            Quantity::Bandwidth => &[("GB/s", 1e9), ("MB/s", 1e6), ("kB/s", 1e3)],
            Quantity::Plain => &[("", 1.0)],
        };
        let base = match quantity(measure) {
            Quantity::Time(exponent) => 10_f64.powi(exponent),
            _ => 1.0,
        };
        let last = steps[steps.len() - 1];
        let (name, size) =
            steps.iter().copied().find(|(_, size)| largest * base >= *size).unwrap_or(last);
        Unit { name, scale: base / size }
    }

    /// A value with three digits that count, without the unit's name.
    pub fn number(&self, value: f64) -> String {
        let scaled = value * self.scale;
        match scaled.abs() {
            0.0 => "0".to_owned(),
            size if size >= 100.0 => format!("{scaled:.0}"),
            size if size >= 10.0 => format!("{scaled:.1}"),
            size if size >= 0.1 => format!("{scaled:.2}"),
            _ => format!("{scaled:.4}"),
        }
    }

    /// A value with the unit's name.
    pub fn text(&self, value: f64) -> String {
        format!("{} {}", self.number(value), self.name).trim_end().to_owned()
    }
}

/// A value of a measure with the unit that suits it.
pub fn text(measure: &str, value: f64) -> String {
    Unit::of(measure, value.abs()).text(value)
}

#[cfg(test)]
mod tests {
    use super::{Unit, text};

    #[test]
    fn units_follow_from_names_and_sizes() {
        for (measure, value, expected) in [
            ("cpu", 1.2345, "1.23 s"),
            ("cpu", 0.012, "12.0 ms"),
            ("push_p99_ns", 1_500.0, "1.50 µs"),
            ("push_own_max_us", 2_500.0, "2.50 ms"),
            ("cpu_ns_per_object", 11.0, "11.0 ns"),
            ("peak", 123_456_789.0, "123 MB"),
            ("resident_bytes", 999.0, "999 B"),
            ("ops_per_s", 2_345_678.0, "2.35 M/s"),
            ("cycle_bytes_per_s", 5e9, "5.00 GB/s"),
            ("hit_ratio", 0.875, "0.88"),
            ("gc_cycles", 0.0, "0"),
            ("large_idle_ns", 0.25, "0.25 ns"),
        ] {
            assert_eq!(text(measure, value), expected, "{measure}");
        }
    }

    #[test]
    fn one_unit_serves_all_values_of_a_plot() {
        let unit = Unit::of("wall", 2.0);
        assert_eq!((unit.text(2.0), unit.text(0.05)), ("2.00 s".into(), "0.0500 s".into()));
    }
}
