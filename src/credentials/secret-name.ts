/**
 * The name under which a workspace keeps the credentials of a registry: `oci-registry-ghcr-io`.
 *
 * Two registries can share one (`a-b.example` and `a.b.example`): what reads such a secret must compare the
 * registry inside it, as `unmarshalCredentials` does when it is told the registry.
 */
export function createSecretName(registry: string): string {
  return `oci-registry-${registry.toLowerCase().replace(/[^a-z0-9-]/g, '-')}`;
}
