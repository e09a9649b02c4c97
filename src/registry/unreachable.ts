import { certificateProblem, systemErrorCode } from '../errors/index.ts';
import { UnreachableError } from './errors.ts';

interface Wording {
  readonly message: string;
  readonly hint?: string;
  readonly transient: boolean;
}

/**
 * The error for a request that got no answer, from fetch's own: what failed (name, connection, TLS), in words,
 * and whether trying again may help.
 */
export function unreachable(url: URL, proxy: string | undefined, cause: unknown): UnreachableError {
  const code = systemErrorCode(cause) ?? '';
  const via = proxy === undefined ? '' : ` through the proxy ${proxyHost(proxy)}`;
  const { message, hint, transient } = word(url.host, code);
  return new UnreachableError(`${message}${via}`, { registry: url.host, hint, transient, cause });
}

function word(host: string, code: string): Wording {
  switch (code) {
    case 'ENOTFOUND':
    case 'EAI_NODATA':
    case 'EAI_NONAME':
      return {
        message: `the name of the registry host ${host} is not known`,
        hint: 'is it spelled right, and does this machine reach its DNS server?',
        transient: false,
      };
    case 'EAI_AGAIN':
    case 'ETIMEOUT':
      return { message: `looking up the name ${host} failed`, hint: DNS_HINT, transient: true };
    case 'ECONNREFUSED':
    case 'ConnectionRefused':
      return {
        message: `${host} refuses the connection`,
        hint: 'is the registry running, and is the port right?',
        transient: true,
      };
    case 'EPROTO':
      return {
        message: `the TLS handshake with ${host} failed`,
        hint: `does it want a client certificate? If it speaks plain http, --insecure-registry ${host} allows that`,
        transient: false,
      };
  }
  const certificate = certificateProblem(code);
  if (certificate !== undefined) {
    return {
      message: `the certificate of ${host} ${certificate.words}`,
      hint: CERTIFICATE_HINTS[certificate.kind],
      transient: false,
    };
  }
  if (/CERT|TLS|SSL|CRL/.test(code)) {
    return { message: `the TLS connection to ${host} failed (${code})`, transient: false };
  }
  return {
    message: `the connection to ${host} failed${code === '' ? '' : ` (${code})`}`,
    transient: !NEVER_TRANSIENT.has(code),
  };
}

const DNS_HINT = 'does this machine reach its DNS server?';

const CERTIFICATE_HINTS = {
  issuer: 'give its authority’s certificate with --registry-ca FILE: to each imgcred serve, a worker’s too',
  name: 'use the name that stands in the certificate',
  time: "check this machine's clock; else the registry needs a new certificate",
  other: 'the registry needs another certificate',
} as const;

const NEVER_TRANSIENT = new Set(['ERR_INVALID_URL', 'ERR_INVALID_ARG_TYPE', 'UnsupportedProxyProtocol']);

function proxyHost(proxy: string): string {
  return URL.canParse(proxy) ? new URL(proxy).host : 'that the environment names';
}
