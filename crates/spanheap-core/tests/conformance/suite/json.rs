//! Reading cases strictly: a field that is missing, unknown or of another shape is an error.

use serde_json::Value;
use spanheap_core::bitmap::{self, WORD_BITS};

/// Why a case could not be run, or does not hold.
pub(crate) type Failure = String;

/// The fields of an object, which must be exactly these.
pub(crate) fn exactly<'a, const N: usize>(
    value: &'a Value,
    names: [&str; N],
) -> Result<[&'a Value; N], Failure> {
    let object = value.as_object().ok_or_else(|| format!("an object is expected, not {value}"))?;
    if let Some(unknown) = object.keys().find(|key| !names.contains(&key.as_str())) {
        return Err(format!("unknown field {unknown:?}"));
    }
    let mut fields = [&Value::Null; N];
    for (field, name) in fields.iter_mut().zip(names) {
        *field = object.get(name).ok_or_else(|| format!("the field {name:?} is missing"))?;
    }
    Ok(fields)
}

/// The `kind` of an input.
pub(crate) fn kind(input: &Value) -> Result<&str, Failure> {
    text(input.get("kind").ok_or("the field \"kind\" is missing")?)
}

pub(crate) fn text(value: &Value) -> Result<&str, Failure> {
    value.as_str().ok_or_else(|| format!("a string is expected, not {value}"))
}

pub(crate) fn flag(value: &Value) -> Result<bool, Failure> {
    value.as_bool().ok_or_else(|| format!("true or false is expected, not {value}"))
}

pub(crate) fn list(value: &Value) -> Result<&Vec<Value>, Failure> {
    value.as_array().ok_or_else(|| format!("a list is expected, not {value}"))
}

/// A list of exactly N values.
pub(crate) fn tuple<const N: usize>(value: &Value) -> Result<&[Value; N], Failure> {
    let list = list(value)?;
    list.as_slice().try_into().map_err(|_| format!("a list of {N} is expected, not {value}"))
}

/// A whole number; all 64 bits are allowed.
pub(crate) fn number(value: &Value) -> Result<usize, Failure> {
    let number =
        value.as_u64().ok_or_else(|| format!("a whole number is expected, not {value}"))?;
    usize::try_from(number).map_err(|_| format!("{number} does not fit"))
}

/// A number, whole or not.
pub(crate) fn decimal(value: &Value) -> Result<f64, Failure> {
    value.as_f64().ok_or_else(|| format!("a number is expected, not {value}"))
}

/// A list of exactly N whole numbers.
pub(crate) fn numbers<const N: usize>(value: &Value) -> Result<[usize; N], Failure> {
    let mut result = [0; N];
    for (slot, value) in result.iter_mut().zip(tuple::<N>(value)?) {
        *slot = number(value)?;
    }
    Ok(result)
}

/// A word as a hexadecimal string.
pub(crate) fn word(value: &Value) -> Result<u64, Failure> {
    let digits = text(value)?.strip_prefix("0x");
    digits
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| format!("a hexadecimal word is expected, not {value}"))
}

/// Exactly N words.
pub(crate) fn words<const N: usize>(value: &Value) -> Result<[u64; N], Failure> {
    let mut result = [0; N];
    for (slot, value) in result.iter_mut().zip(tuple::<N>(value)?) {
        *slot = word(value)?;
    }
    Ok(result)
}

/// The bits that a list of `[start, length]` names.
pub(crate) fn runs<const N: usize>(value: &Value) -> Result<[u64; N], Failure> {
    let mut bits = [0; N];
    for run in list(value)? {
        let [start, len] = numbers(run)?;
        if start + len > N * WORD_BITS {
            return Err(format!("the run {run} does not fit"));
        }
        bitmap::set_range(&mut bits, start, len);
    }
    Ok(bits)
}

/// A word as the files write it.
pub(crate) fn of_word(word: u64) -> Value {
    Value::String(format!("{word:#x}"))
}

/// Words as the files write them.
pub(crate) fn of_words(words: &[u64]) -> Value {
    words.iter().copied().map(of_word).collect()
}

/// Bits as a list of `[start, length]`.
pub(crate) fn of_runs(words: &[u64]) -> Value {
    bitmap::runs(words).map(|run| Value::from(vec![run.start, run.len])).collect()
}
