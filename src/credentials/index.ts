export { CredentialError } from './error.ts';
export type { CredentialProvider, CredentialType, Login } from './provider.ts';
export { Secret } from './secret.ts';
