export {
  anonymousProvider,
  createProviderFromCredentials,
  createProviderFromEnv,
  type ProviderOptions,
} from './create-provider.ts';
export {
  type CredentialMap,
  type Environment,
  isCredentialKey,
  parseCredentialsFromEnv,
} from './credential-map.ts';
export { detectCredentialType } from './detect.ts';
export { type DockerConfig, dockerConfigPaths, parseDockerConfig } from './docker-config.ts';
export { CredentialError } from './error.ts';
export { loginKeys } from './login-keys.ts';
export { marshalCredentials, type RegistryCredentials, unmarshalCredentials } from './marshal.ts';
export type { CredentialProvider, CredentialType, Login } from './provider.ts';
export {
  createProviderFromDockerConfig,
  type DockerConfigOptions,
  resolveDockerConfig,
} from './providers/docker-config.ts';
export { LoginCache } from './providers/login-cache.ts';
export { type RegistryKind, type RegistryType, registryType } from './registry-type.ts';
export { RotatingProvider } from './rotating-provider.ts';
export { Secret } from './secret.ts';
export { createSecretName } from './secret-name.ts';
