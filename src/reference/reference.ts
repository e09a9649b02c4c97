import { type Digest, parseDigest } from './digest.ts';
import { ReferenceSyntaxError } from './error.ts';
import { checkRegistryHost, DOCKER_HUB } from './registry-host.ts';

/** An image's full name. Made by {@link parseReference} only, so that each part is safe in a path or a URL. */
export interface Reference {
  /** `docker.io`, `localhost:5000`, `[::1]:5000`; spelt as given. */
  readonly registry: string;
  /** `library/ubuntu`: lower-case components, joined by `/`. */
  readonly repository: string;
  readonly tag?: string;
  readonly digest?: Digest;
}

const COMPONENT = '[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*';
const REPOSITORY = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const TAG = /^\w[\w.-]{0,127}$/;
const TRANSPORT = /^(?:docker|oci):\/\//;
// distribution/reference bounds the repository, not the whole name.
const LONGEST_REPOSITORY = 255;
// Host, repository, tag and digest at their longest are a quarter of it.
const LONGEST_REFERENCE = 4096;

/**
 * Parses an image reference as Docker does: a first component without `.`, `:` or upper case belongs to the
 * repository, the registry is `docker.io` then, and Docker Hub's one-word names are in `library/`. A `docker://`
 * or `oci://` prefix is dropped. No tag is made up where none is given.
 *
 * @throws ReferenceSyntaxError `INVALID_REFERENCE`
 * @see https://pkg.go.dev/github.com/distribution/reference
 */
export function parseReference(input: string): Reference {
  const text = input.replace(TRANSPORT, '');
  if (text === '') throw new ReferenceSyntaxError('empty image reference', input);
  if (text.length > LONGEST_REFERENCE) throw new ReferenceSyntaxError('image reference too long', input);
  if (!/^[\x21-\x7e]+$/.test(text)) {
    throw new ReferenceSyntaxError('white space, control or non-ASCII character in image reference', input);
  }
  if (text.includes('://')) {
    throw new ReferenceSyntaxError(
      'an image reference has no scheme',
      input,
      'only docker:// and oci:// may stand in front',
    );
  }
  if (/^[0-9a-f]{64}$/.test(text)) {
    throw new ReferenceSyntaxError('64 hex digits are an identifier, not a name', input);
  }
  const { registry, rest } = splitRegistry(text);
  const { repository, tag, digest } = splitSuffixes(rest, input);
  const path = registry === DOCKER_HUB && !repository.includes('/') ? `library/${repository}` : repository;
  return {
    registry: checkRegistryHost(registry, input),
    repository: checkRepository(path, input),
    ...(tag === undefined ? {} : { tag: checkTag(tag, input) }),
    ...(digest === undefined ? {} : { digest: parseDigest(digest) }),
  };
}

/**
 * The registry of an image reference: `docker.io` for `ubuntu`.
 *
 * @throws ReferenceSyntaxError `INVALID_REFERENCE`
 */
export function parseRegistry(input: string): string {
  return parseReference(input).registry;
}

/** The full spelling, `docker.io/library/ubuntu:22.04@sha256:…`; {@link parseReference} gives the same back. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === undefined ? '' : `:${reference.tag}`;
  const digest = reference.digest === undefined ? '' : `@${reference.digest}`;
  return `${reference.registry}/${reference.repository}${tag}${digest}`;
}

function splitRegistry(text: string): { registry: string; rest: string } {
  const slash = text.indexOf('/');
  const first = text.slice(0, Math.max(0, slash));
  const namesHost = /[.:A-Z]/.test(first) || first === 'localhost';
  if (slash === -1 || !namesHost) return { registry: DOCKER_HUB, rest: text };
  return { registry: first === 'index.docker.io' ? DOCKER_HUB : first, rest: text.slice(slash + 1) };
}

/**
 * A reference as registration stores it: normalised, with the tag `latest` where it names neither tag nor digest.
 *
 * @throws ReferenceSyntaxError `INVALID_REFERENCE`
 */
export function normalReference(input: string): Reference {
  const reference = parseReference(input);
  return reference.tag === undefined && reference.digest === undefined
    ? { ...reference, tag: 'latest' }
    : reference;
}

function splitSuffixes(rest: string, input: string) {
  const at = rest.indexOf('@');
  const name = at === -1 ? rest : rest.slice(0, at);
  const digest = at === -1 ? undefined : rest.slice(at + 1);
  const colon = name.indexOf(':');
  const repository = colon === -1 ? name : name.slice(0, colon);
  const tag = colon === -1 ? undefined : name.slice(colon + 1);
  if (repository === '') throw new ReferenceSyntaxError('no repository in image reference', input);
  return { repository, tag, digest };
}

/**
 * Checks a repository's grammar and length.
 *
 * @throws ReferenceSyntaxError `INVALID_REFERENCE`
 */
export function checkRepository(repository: string, input: string = repository): string {
  if (/[A-Z]/.test(repository)) throw new ReferenceSyntaxError('a repository is lower case', input);
  if (!REPOSITORY.test(repository)) throw new ReferenceSyntaxError('not a repository name', input);
  if (repository.length > LONGEST_REPOSITORY) {
    throw new ReferenceSyntaxError(`a repository has at most ${LONGEST_REPOSITORY} characters`, input);
  }
  return repository;
}

function checkTag(tag: string, input: string): string {
  if (!TAG.test(tag)) {
    throw new ReferenceSyntaxError(
      'a tag is a letter, digit or _, then at most 127 of those, . and -',
      input,
    );
  }
  return tag;
}
