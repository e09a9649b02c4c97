import {
  anonymousProvider,
  type CredentialProvider,
  createProviderFromCredentials,
  detectCredentialType,
} from '../../credentials/index.ts';
import { ImgcredError } from '../../errors/index.ts';
import { formatReference, parsePlatform, parseReference } from '../../reference/index.ts';
import { clientOptionsOf, type LoginStep, loginCheck } from '../../registry/index.ts';
import type { Command } from '../command.ts';
import { CONNECTION_OPTIONS, configOf, ROLE_OPTIONS, stderrLogger } from '../context.ts';
import { CREDENTIAL_OPTIONS, readCredentials } from '../credentials-input.ts';
import { print, printJson } from '../output.ts';
import { PLATFORM } from '../platform-option.ts';

const LONGEST_STEP = 'connection'.length;

export const registryLoginCheck: Command = {
  words: ['registry', 'login-check'],
  summary: 'Log in to a registry step by step, and say what happens',
  usage: 'REFERENCE [--creds-env NAMES | --creds-file FILE | --creds-stdin]',
  description:
    'Tries what a registration tries: the connection, the challenge, the scope, the token endpoint, the manifest, and\n' +
    'whether parts of a layer can be read. Needs no server, and stores nothing. Secrets are not printed.',
  examples: [
    'REGISTRY_USERNAME=me REGISTRY_PASSWORD=… imgcred registry login-check registry.example.com/app:1 --creds-env REGISTRY_USERNAME,REGISTRY_PASSWORD',
    'imgcred registry login-check ghcr.io/me/app:1 --creds-file ~/.docker/config.json',
  ],
  options: {
    ...CREDENTIAL_OPTIONS,
    platform: {
      value: 'OS/ARCH',
      takes: PLATFORM,
      help: 'platform to take from a multi-platform image (this machine’s)',
    },
    config: ROLE_OPTIONS.config,
    'insecure-registry': ROLE_OPTIONS['insecure-registry'],
    'registry-ca': ROLE_OPTIONS['registry-ca'],
    'log-level': { value: 'LEVEL', help: 'debug, info, warn or error (error)' },
    json: CONNECTION_OPTIONS.json,
  },
  positionals: [1, 1],
  async run(invocation) {
    const reference = parseReference(invocation.positionals[0] ?? '');
    const { registry, repository } = reference;
    const platform = invocation.text('platform');
    const config = configOf(invocation, { log_level: invocation.text('log-level') ?? 'error' });
    const provider = providerOf(registry, await readCredentials(invocation, registry, repository));
    const json = invocation.flag('json');
    const steps: LoginStep[] = [];
    const checked = loginCheck(reference, provider, {
      ...clientOptionsOf(config, stderrLogger(config)),
      ...(platform === undefined ? {} : { platform: parsePlatform(platform) }),
    });
    for await (const step of checked) {
      steps.push(step);
      if (!json) await print(stepLines(step));
    }
    const error = steps.find((step) => step.error !== undefined)?.error;
    if (json) {
      await printJson({
        reference: formatReference(reference),
        credential_type: provider.type,
        ok: error === undefined,
        steps: steps.map((step) => ({
          step: step.step,
          outcome: outcomeOf(step),
          detail: step.detail,
          ...(step.hint === undefined ? {} : { hint: step.hint }),
          duration_ms: Math.round(step.durationMs),
          ...(step.error === undefined ? {} : { code: step.error.code }),
        })),
      });
    }
    return error?.exitCode ?? 0;
  },
};

function providerOf(registry: string, credentials: Record<string, string> | undefined): CredentialProvider {
  if (credentials === undefined) return anonymousProvider(registry);
  if (detectCredentialType(registry, credentials) === 'public') {
    throw new ImgcredError('INVALID_CREDENTIALS', `the credential for ${registry} is empty`, {
      hint: 'leave the --creds options out for a public image',
    });
  }
  return createProviderFromCredentials(registry, credentials);
}

// What failed without an error costs time, not the image.
function outcomeOf(step: LoginStep): string {
  return step.outcome === 'failed' && step.error === undefined ? 'warning' : step.outcome;
}

function stepLines(step: LoginStep): string {
  const left = `${outcomeOf(step).padEnd('skipped'.length)}  ${step.step.padEnd(LONGEST_STEP)}`;
  const time = step.durationMs < 1 ? '' : ` (${Math.round(step.durationMs)} ms)`;
  const hint = step.hint === undefined ? '' : `${' '.repeat(left.length)}  ${step.hint}\n`;
  return `${left}  ${step.detail}${time}\n${hint}`;
}
