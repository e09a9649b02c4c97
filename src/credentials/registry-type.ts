/** Who runs a registry, as far as its host's name tells. */
export type RegistryKind =
  | 'aws'
  | 'aws-public'
  | 'gcp'
  | 'azure'
  | 'github'
  | 'dockerhub'
  | 'ngc'
  | 'generic';

export interface RegistryType {
  readonly type: RegistryKind;
  /** AWS account id, 12 digits. */
  readonly account?: string;
  /** AWS region. */
  readonly region?: string;
  /** Present on AWS's FIPS endpoints only. */
  readonly fips?: true;
  /** Present on AWS's dual-stack (IPv4 and IPv6) endpoints only. */
  readonly dualStack?: true;
}

// One DNS suffix a partition: commercial and GovCloud, China, European sovereign cloud, and the isolated
// partitions iso, iso-b, iso-e, iso-f. Dual-stack names have their own suffix and one label instead of two.
const ECR =
  /^(\d{12})\.dkr\.ecr(-fips)?\.([a-z]{2,4}(?:-[a-z]+)+-\d{1,2})\.(?:amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$/;
const ECR_DUAL_STACK =
  /^(\d{12})\.dkr-ecr(-fips)?\.([a-z]{2,4}(?:-[a-z]+)+-\d{1,2})\.(?:on\.aws|on\.amazonwebservices\.com\.cn|on\.amazonwebservices\.eu|on\.aws\.ic\.gov|on\.aws\.scloud|on\.cloud-aws\.adc-e\.uk|on\.aws\.hci\.ic\.gov)$/;
const LABEL = '[a-z0-9](?:[a-z0-9-]*[a-z0-9])?';

const PATTERNS: readonly (readonly [RegistryKind, RegExp])[] = [
  ['aws-public', /^(?:public\.ecr\.aws|ecr-public\.aws\.com)$/],
  [
    'gcp',
    new RegExp(
      `^(?:(?:${LABEL}\\.)?gcr\\.io|(?:${LABEL}-)?docker\\.pkg\\.dev|docker\\.${LABEL}\\.rep\\.pkg\\.dev)$`,
    ),
  ],
  ['azure', new RegExp(`^${LABEL}(?:\\.${LABEL}\\.(?:data|geo))?\\.azurecr\\.(?:io|cn|us|de)$`)],
  ['github', new RegExp(`^(?:ghcr\\.io|docker\\.pkg\\.github\\.com|containers\\.${LABEL}\\.ghe\\.com)$`)],
  ['dockerhub', /^(?:docker\.io|index\.docker\.io|registry-1\.docker\.io|registry\.hub\.docker\.com)$/],
  ['ngc', /^nvcr\.io$/],
];

/**
 * Tells who runs the registry from the whole of its host's name: `ghcr.io.example.com` is not GitHub. A port
 * other than 443 makes any host `generic`, since the providers have none.
 */
export function registryType(host: string): RegistryType {
  const name = host.toLowerCase().replace(/:443$/, '');
  const ecr = ECR.exec(name) ?? ECR_DUAL_STACK.exec(name);
  if (ecr !== null) {
    const [, account = '', fips, region = ''] = ecr;
    return {
      type: 'aws',
      account,
      region,
      ...(fips === undefined ? {} : { fips: true }),
      ...(ECR.test(name) ? {} : { dualStack: true }),
    };
  }
  const type = PATTERNS.find(([, pattern]) => pattern.test(name))?.[0] ?? 'generic';
  return { type };
}
