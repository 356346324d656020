//! Messages and services of `foldlog.v1`, generated from `proto/foldlog/v1`; documented there.

pub mod codec;

/// Version 1.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated: which of these it needs depends on the generator")]
pub mod v1 {
    tonic::include_proto!("foldlog.v1");

    /// Encoded `google.protobuf.FileDescriptorSet` of everything here, for reflection.
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("foldlog.v1");
}
