//! TLS: checking certificates against the platform's roots and a private CA's, or not checking them at all.

use std::fmt::Display;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::sync::OnceCell;

use super::error::{ErrorClass, GatewayError};

/// The largest CA file that is read, in bytes; all the CAs of the world are a fifth of it.
const MOST: u64 = 1 << 20;

fn failed(what: &str, why: &dyn Display) -> GatewayError {
    GatewayError::new(ErrorClass::TlsFailed, format!("{what}: {why}"))
}

/// Why a file of CA certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaFileError {
    /// It cannot be read.
    #[error("cannot read the CA file {path}: {source}. Check the path given by --gateway-ca-file and its permissions")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error(
        "the CA file {path} cannot be used: {problem}. --gateway-ca-file takes a PEM file of one or more certificates \
         (-----BEGIN CERTIFICATE-----), each of a CA that signs gateways' certificates"
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Whose word counts for who a gateway is: the platform's root certificates (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured),
/// and those of a file of the operator's.
#[derive(Debug, Default)]
pub struct Trust {
    /// Read at every connection, because certificates get rotated.
    ca_file: Option<PathBuf>,
    /// Loaded when first needed: it is a directory of files.
    platform: OnceCell<RootCertStore>,
    current: Mutex<Option<Current>>,
}

/// The configuration in use, and the text of the CA file that it was made from.
#[derive(Clone, Debug)]
struct Current {
    pem: Option<Vec<u8>>,
    config: Arc<ClientConfig>,
}

impl Trust {
    /// Trusts those whom the platform trusts, and the CAs in this file. The file is read once to see that it can be used, and again
    /// at every connection.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no usable certificate, or an unusable one.
    pub fn with_ca_file(path: &Path) -> Result<Self, CaFileError> {
        add_all(&mut RootCertStore::empty(), path, &read(path)?)?;
        Ok(Self {
            ca_file: Some(path.to_owned()),
            ..Self::default()
        })
    }

    /// The configuration for the next connection.
    pub(super) async fn verified(&self) -> Result<Arc<ClientConfig>, GatewayError> {
        let last = self.current().clone();
        let pem = match &self.ca_file {
            None => None,
            Some(path) => {
                let file = path.clone();
                let text = tokio::task::spawn_blocking(move || read(&file))
                    .await
                    .map_err(|error| failed("cannot read the CA file", &error))?;
                match (text, &last) {
                    (Ok(text), _) => Some(text),
                    (Err(error), Some(last)) => {
                        tracing::error!(%error, "the CAs that were read before are trusted until this is put right");
                        return Ok(Arc::clone(&last.config));
                    }
                    (Err(error), None) => return Err(failed("no certificate can be checked", &error)),
                }
            }
        };
        if let Some(last) = &last
            && last.pem == pem
        {
            return Ok(Arc::clone(&last.config));
        }
        let mut roots = self.platform.get_or_try_init(platform).await?.clone();
        if let (Some(path), Some(pem)) = (&self.ca_file, &pem)
            && let Err(error) = add_all(&mut roots, path, pem)
        {
            let Some(last) = last else {
                return Err(failed("no certificate can be checked", &error));
            };
            tracing::error!(%error, "the CAs that were read before are trusted until this is put right");
            return Ok(last.config);
        }
        if roots.is_empty() {
            return Err(failed(
                "no root certificates on this machine",
                &"install ca-certificates, set SSL_CERT_FILE, or use --gateway-ca-file",
            ));
        }
        if last.is_some() {
            tracing::info!("the CA file has changed; its CAs are trusted from now on, instead of those before");
        }
        let config = Arc::new(builder()?.with_root_certificates(roots).with_no_client_auth());
        *self.current() = Some(Current {
            pem,
            config: Arc::clone(&config),
        });
        Ok(config)
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<Current>> {
        // It is only ever replaced as a whole.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The platform's root certificates; none is no error, for there may be others.
async fn platform() -> Result<RootCertStore, GatewayError> {
    // Reads a directory of files.
    let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
        .await
        .map_err(|error| failed("cannot load the platform's root certificates", &error))?;
    for error in &loaded.errors {
        tracing::warn!(%error, "some of the platform's root certificates cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, CaFileError> {
    let failed = |source| CaFileError::Io {
        path: path.to_owned(),
        source,
    };
    // Opening a pipe would wait for somebody to write.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(CaFileError::Unusable {
            path: path.to_owned(),
            problem: "it is no file".to_owned(),
        });
    }
    let mut text = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MOST + 1).read_to_end(&mut text))
        .map_err(failed)?;
    if text.len() as u64 > MOST {
        return Err(CaFileError::Unusable {
            path: path.to_owned(),
            problem: format!("it has more than {MOST} bytes"),
        });
    }
    Ok(text)
}

/// Adds all certificates of a PEM file; one that cannot be used is an error, since somebody wanted it to be.
fn add_all(roots: &mut RootCertStore, path: &Path, pem: &[u8]) -> Result<(), CaFileError> {
    let unusable = |problem: String| CaFileError::Unusable {
        path: path.to_owned(),
        problem,
    };
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        count += 1;
        let certificate =
            certificate.map_err(|error| unusable(format!("its certificate {count} is damaged ({error})")))?;
        roots
            .add(certificate)
            .map_err(|error| unusable(format!("its certificate {count} is none that can be trusted ({error})")))?;
    }
    if count == 0 {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(())
}

/// Trusts everybody. The connection is encrypted, but nobody knows to whom.
pub(super) fn unverified() -> Result<Arc<ClientConfig>, GatewayError> {
    let verifier = Arc::new(AnyCertificate(Arc::new(ring::default_provider())));
    Ok(Arc::new(
        builder()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth(),
    ))
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, GatewayError> {
    // The provider is named, because a process-wide default would be somebody else's choice.
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed("cannot set up TLS", &error))
}

/// Accepts every certificate, but still makes the server prove that it holds the certificate's key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    fn authority() -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let text = STANDARD.encode(certificate.der());
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    #[test]
    fn a_ca_file_that_cannot_be_used_is_refused_at_the_start_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let refused = || Trust::with_ca_file(&path).unwrap_err().to_string();
        assert!(refused().contains("cannot read") && refused().contains("--gateway-ca-file"));
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cut = &authority()[..200];
        for text in ["", "garbage", key, empty, cut, &format!("{}{empty}", authority())] {
            fs::write(&path, text).unwrap();
            assert!(
                refused().contains("PEM file of one or more certificates"),
                "{}",
                refused()
            );
            assert!(refused().contains(&path.display().to_string()));
        }
        fs::write(&path, format!("{}\na comment\n{}", authority(), authority())).unwrap();
        Trust::with_ca_file(&path).unwrap();
    }

    #[tokio::test]
    async fn a_changed_ca_file_counts_at_the_next_connection_and_a_broken_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        fs::write(&path, authority()).unwrap();
        let trust = Trust::with_ca_file(&path).unwrap();
        let first = trust.verified().await.unwrap();
        assert!(Arc::ptr_eq(&first, &trust.verified().await.unwrap()));
        fs::write(&path, authority()).unwrap();
        let second = trust.verified().await.unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        fs::write(&path, "garbage").unwrap();
        assert!(Arc::ptr_eq(&second, &trust.verified().await.unwrap()));
        fs::remove_file(&path).unwrap();
        assert!(Arc::ptr_eq(&second, &trust.verified().await.unwrap()));
    }
}
