import {
  ALLOWED_PERSONALITIES,
  ALLOWED_SYSCALLS,
  REFUSED_SYSCALLS,
  SYSCALLS_OF_ARCHITECTURE,
  SYSCALLS_OF_CAPABILITY,
} from './seccomp-syscalls.ts';

/** @see OCI runtime-spec, config-linux.md, "Seccomp" */
export interface SeccompProfile {
  readonly defaultAction: SeccompAction;
  readonly defaultErrnoRet: number;
  readonly architectures: readonly string[];
  readonly syscalls: readonly SeccompRule[];
}

export type SeccompAction = 'SCMP_ACT_ALLOW' | 'SCMP_ACT_ERRNO';

export interface SeccompRule {
  readonly names: readonly string[];
  readonly action: SeccompAction;
  readonly errnoRet?: number;
  readonly args?: readonly SeccompArgument[];
}

export interface SeccompArgument {
  readonly index: number;
  readonly value: number;
  readonly op: 'SCMP_CMP_EQ' | 'SCMP_CMP_NE';
}

const EPERM = 1;
const EINVAL = 22;
const ENOSYS = 38;
const AF_NETLINK = 16;
const NETLINK_AUDIT = 9;

/** The native architecture first, then those whose programs its kernel also runs. */
const ARCHITECTURES: Readonly<Record<string, readonly string[]>> = {
  x64: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
  arm64: ['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'],
  s390x: ['SCMP_ARCH_S390X', 'SCMP_ARCH_S390'],
  ppc64: ['SCMP_ARCH_PPC64LE'],
};

/**
 * The default profile for a container whose bounding set is `capabilities`.
 * @param architecture Node's name (`process.arch`)
 */
export function seccompProfile(architecture: string, capabilities: readonly string[]): SeccompProfile {
  const held = Object.entries(SYSCALLS_OF_CAPABILITY);
  const granted = held.filter(([name]) => capabilities.includes(name)).flatMap(([, calls]) => calls);
  const withheld = held.filter(([name]) => !capabilities.includes(name)).flatMap(([, calls]) => calls);
  const allowed = [...ALLOWED_SYSCALLS, ...(SYSCALLS_OF_ARCHITECTURE[architecture] ?? []), ...granted];
  return {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: ENOSYS,
    architectures: ARCHITECTURES[architecture] ?? [],
    syscalls: [
      { names: allowed, action: 'SCMP_ACT_ALLOW' },
      { names: [...REFUSED_SYSCALLS, ...withheld], action: 'SCMP_ACT_ERRNO', errnoRet: EPERM },
      ...ALLOWED_PERSONALITIES.map(
        (value): SeccompRule => ({
          names: ['personality'],
          action: 'SCMP_ACT_ALLOW',
          args: [{ index: 0, value, op: 'SCMP_CMP_EQ' }],
        }),
      ),
      ...socketRules(capabilities.includes('CAP_AUDIT_WRITE')),
    ],
  };
}

// Without CAP_AUDIT_WRITE, socket(AF_NETLINK, _, NETLINK_AUDIT) must fail as on a kernel without auditing:
// PAM takes EINVAL for "no audit" and EPERM for "refuse the login".
function socketRules(mayAudit: boolean): SeccompRule[] {
  if (mayAudit) return [{ names: ['socket'], action: 'SCMP_ACT_ALLOW' }];
  const family = (op: SeccompArgument['op']): SeccompArgument => ({ index: 0, value: AF_NETLINK, op });
  const protocol = (op: SeccompArgument['op']): SeccompArgument => ({ index: 2, value: NETLINK_AUDIT, op });
  return [
    {
      names: ['socket'],
      action: 'SCMP_ACT_ERRNO',
      errnoRet: EINVAL,
      args: [family('SCMP_CMP_EQ'), protocol('SCMP_CMP_EQ')],
    },
    { names: ['socket'], action: 'SCMP_ACT_ALLOW', args: [family('SCMP_CMP_NE')] },
    { names: ['socket'], action: 'SCMP_ACT_ALLOW', args: [protocol('SCMP_CMP_NE')] },
  ];
}
