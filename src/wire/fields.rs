//! The fields of a protobuf message, one after the other, as the bytes say: types are checked when a
//! value is asked for.

use super::WireError;

/// Value that a field holds.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// A type that no field of ours has.
    Foreign,
}

/// Reads one field after another; ends after an error.
#[derive(Clone)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Value<'a>), WireError> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3)
            .ok()
            .filter(|number| (1..1 << 29).contains(number))
            .ok_or(WireError::Protobuf("a field number out of range"))?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Value::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Value::Foreign
            }
            _ => return Err(WireError::Protobuf("a wire type that is not in use")),
        };
        Ok((number, value))
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(CUT_SHORT)?;
            self.0 = rest;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Protobuf("a number of more than 64 bits"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(*taken)
    }
}

const CUT_SHORT: WireError = WireError::Protobuf("cut short");

impl<'a> Value<'a> {
    pub(super) fn bytes(self, what: &'static str) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::WireType { what }),
        }
    }

    pub(super) fn uint(self, what: &'static str) -> Result<u64, WireError> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(WireError::WireType { what }),
        }
    }

    pub(super) fn uint32(self, what: &'static str) -> Result<u32, WireError> {
        self.at_most(what, u64::from(u32::MAX)).map(|v| u32::try_from(v).unwrap_or(u32::MAX))
    }

    pub(super) fn hop(self) -> Result<u16, WireError> {
        self.at_most("hop", u64::from(u16::MAX)).map(|v| u16::try_from(v).unwrap_or(u16::MAX))
    }

    pub(super) fn at_most(self, what: &'static str, limit: u64) -> Result<u64, WireError> {
        let actual = self.uint(what)?;
        if actual <= limit { Ok(actual) } else { Err(WireError::Limit { what, actual, limit }) }
    }

    pub(super) fn fixed64(self, what: &'static str) -> Result<u64, WireError> {
        match self {
            Self::Fixed64(value) => Ok(value),
            _ => Err(WireError::WireType { what }),
        }
    }

    /// Hands every number of a repeated field to `each`, packed or not.
    pub(super) fn each(
        self,
        what: &'static str,
        mut each: impl FnMut(Value<'a>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        match self {
            Self::Varint(_) => each(self),
            Self::Bytes(bytes) => {
                let mut numbers = Fields(bytes);
                while !numbers.0.is_empty() {
                    each(Value::Varint(numbers.varint()?))?;
                }
                Ok(())
            }
            _ => Err(WireError::WireType { what }),
        }
    }
}
