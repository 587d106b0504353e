//! Buffers for large payloads.

/// Size from which on a payload gets memory of its own.
const LARGE: usize = 4 << 20;
/// Capacity for which glibc always maps memory and gives it back as soon as it is freed: above the
/// highest threshold that it takes up by itself (32 MiB). What is smaller stays with the arena of its thread
/// when it is freed, some 20 MiB for each of a dozen.
const MAPPED: usize =
    if cfg!(all(target_os = "linux", target_env = "gnu")) { (32 << 20) + 1 } else { 0 };

/// Returns an empty buffer for `len` bytes. That of a large payload may have more capacity, which
/// is address space and no memory.
pub(crate) fn payload_buffer(len: usize) -> Vec<u8> {
    Vec::with_capacity(if len < LARGE { len } else { len.max(MAPPED) })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_buffer_holds_what_it_is_for_and_becomes_bytes_in_place() {
        for len in [0, 1, LARGE - 1, LARGE, 40 << 20] {
            let mut buffer = payload_buffer(len);
            assert!(buffer.capacity() >= len);
            buffer.resize(len, 7);
            let at = buffer.as_ptr();
            let bytes = Bytes::from(buffer);
            assert_eq!(bytes.len(), len);
            assert!(len == 0 || bytes.as_ptr() == at, "{len} bytes were copied");
        }
    }
}
