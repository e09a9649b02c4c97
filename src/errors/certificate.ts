/** What is wrong with the certificate that a server shows. */
export interface CertificateProblem {
  /**
   * `issuer`: nobody that is trusted here has signed it; `name`: it is another server's; `time`: it is no longer valid,
   * or not yet; `other`: it is refused for a reason of its own.
   */
  readonly kind: 'issuer' | 'name' | 'time' | 'other';
  /** What to say after "the certificate of HOST": it holds the code, which a search engine knows. */
  readonly words: string;
}

const UNKNOWN_ISSUER = 'is signed by nobody that is trusted here';

const PROBLEMS: Readonly<Record<string, readonly [CertificateProblem['kind'], string]>> = {
  DEPTH_ZERO_SELF_SIGNED_CERT: ['issuer', 'is self-signed, and not trusted here'],
  SELF_SIGNED_CERT_IN_CHAIN: ['issuer', UNKNOWN_ISSUER],
  UNABLE_TO_GET_ISSUER_CERT: ['issuer', UNKNOWN_ISSUER],
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: ['issuer', UNKNOWN_ISSUER],
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: ['issuer', UNKNOWN_ISSUER],
  CERT_UNTRUSTED: ['issuer', UNKNOWN_ISSUER],
  ERR_TLS_CERT_ALTNAME_INVALID: ['name', 'is made out to another name'],
  HOSTNAME_MISMATCH: ['name', 'is made out to another name'],
  CERT_HAS_EXPIRED: ['time', 'has expired'],
  CERT_NOT_YET_VALID: ['time', 'is not valid yet'],
  CERT_REVOKED: ['other', 'was revoked'],
};

// Further ones of OpenSSL's (`X509_V_ERR_…`): of no use to a reader but as a code.
const OTHERS = /^(CERT_|CRL_|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_EXCEEDED|EE_KEY_TOO_SMALL|CA_)/;

/**
 * What is wrong with a certificate, from the code of a connection's error; undefined where it is not about one.
 *
 * @see https://docs.openssl.org/3.0/man1/openssl-verification-options/
 */
export function certificateProblem(code: string | undefined): CertificateProblem | undefined {
  const [kind, words] = PROBLEMS[code ?? ''] ?? (OTHERS.test(code ?? '') ? ['other', 'is refused'] : []);
  return kind === undefined ? undefined : { kind, words: `${words} (${code})` };
}
