//! A proportional-integral controller: turns the distance from a setpoint into a setting.
//!
//! ```text
//!   raw      = gain * (setpoint - input) + I            what the rule asks for
//!   output   = raw, kept between min and max            what can be set
//!   I       += gain * period / integral_time * (setpoint - input)
//!            + period / reset_time * (output - raw)
//! ```
//!
//! The last term takes back from the integral what could not be set: without it the integral would
//! grow for as long as the output is at a bound, and the output would stay there for as long again
//! after the input has come back.
//!
//! **Failure.** Inputs come from measurements, and a clock that jumps can make them absurd. When
//! the arithmetic leaves the finite numbers, the controller says so and forgets its integral; so no
//! output is ever infinite or not a number, and one bad measurement does not spoil all that follow.
//!
//! Pure numbers, 64-bit, evaluated in the order in which they are written here; so the results are
//! the same on every machine, to the last digit.

/// The constants of a controller.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    /// Output per distance from the setpoint.
    pub gain: f64,
    /// The time, in the unit of periods, in which the integral follows; zero: it never changes.
    pub integral_time: f64,
    /// The time, in the same unit, in which the integral forgets what could not be set; zero: it
    /// never changes.
    pub reset_time: f64,
    /// The least output.
    pub min: f64,
    /// The greatest output.
    pub max: f64,
}

/// A controller and its integral.
#[derive(Clone, Debug)]
pub struct PiController {
    parameters: Parameters,
    integral: f64,
}

impl PiController {
    /// A controller that has seen nothing.
    ///
    /// # Panics
    /// When the bounds are no numbers or the least is above the greatest.
    pub const fn new(parameters: Parameters) -> PiController {
        assert!(parameters.min <= parameters.max, "the bounds of a controller enclose something");
        PiController { parameters, integral: 0.0 }
    }

    /// The next output, after `period` in which the input was `input`. `None`: the arithmetic has
    /// failed, and the controller is as it was in the beginning; the least output is safe.
    pub fn next(&mut self, input: f64, setpoint: f64, period: f64) -> Option<f64> {
        let Parameters { gain, integral_time, reset_time, min, max } = self.parameters;
        let raw = gain * (setpoint - input) + self.integral;
        if !raw.is_finite() {
            self.integral = 0.0;
            return None;
        }
        let output = raw.clamp(min, max);
        if integral_time != 0.0 && reset_time != 0.0 {
            self.integral += (gain * period / integral_time) * (setpoint - input)
                + (period / reset_time) * (output - raw);
            if !self.integral.is_finite() {
                self.integral = 0.0;
                return None;
            }
        }
        Some(output)
    }

    /// The least output.
    pub const fn min(&self) -> f64 {
        self.parameters.min
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngSeed};

    const PARAMETERS: Parameters =
        Parameters { gain: 0.5, integral_time: 10.0, reset_time: 100.0, min: 0.0, max: 8.0 };

    #[test]
    fn without_an_integral_the_output_is_proportional() {
        let parameters = Parameters { integral_time: 0.0, ..PARAMETERS };
        let mut controller = PiController::new(parameters);
        for _ in 0..3 {
            assert_eq!(controller.next(1.0, 3.0, 1.0), Some(1.0));
        }
        assert_eq!(controller.next(9.0, 3.0, 1.0), Some(0.0));
        assert_eq!(controller.next(-90.0, 3.0, 1.0), Some(8.0));
    }

    #[test]
    fn a_lasting_distance_moves_the_output_further() {
        let mut controller = PiController::new(PARAMETERS);
        let outputs: Vec<f64> =
            (0..10).map(|_| controller.next(1.0, 3.0, 1.0).expect("finite")).collect();
        assert!(outputs.windows(2).all(|pair| pair[0] < pair[1]), "{outputs:?}");
    }

    #[test]
    fn a_failure_is_told_and_then_forgotten() {
        let mut controller = PiController::new(PARAMETERS);
        let first = controller.next(1.0, 3.0, 1.0);
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(controller.next(bad, 3.0, 1.0), None);
            assert_eq!(PiController::new(PARAMETERS).next(1.0, 3.0, bad), None);
        }
        assert_eq!(controller.next(1.0, 3.0, 1.0), first);
    }

    proptest! {
        #![proptest_config(Config {
            cases: 2000,
            rng_seed: RngSeed::Fixed(0x91c0),
            failure_persistence: None,
            ..Config::default()
        })]

        #[test]
        fn the_output_is_a_number_between_the_bounds_whatever_comes_in(
            gain in proptest::num::f64::POSITIVE | proptest::num::f64::NEGATIVE,
            times in [1e-300f64..1e300, 1e-300f64..1e300],
            bounds in [-1e300f64..1e300, -1e300f64..1e300],
            samples in prop::collection::vec([proptest::num::f64::ANY; 3], 1..30),
        ) {
            let [integral_time, reset_time] = times;
            let (min, max) = (bounds[0].min(bounds[1]), bounds[0].max(bounds[1]));
            let parameters = Parameters { gain, integral_time, reset_time, min, max };
            let mut controller = PiController::new(parameters);
            for [input, setpoint, period] in samples {
                let output = controller.next(input, setpoint, period).unwrap_or(controller.min());
                prop_assert!(output >= min && output <= max, "{output}");
            }
        }
    }
}
