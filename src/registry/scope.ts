/** The scope that reading a repository needs. @see distribution "Token Scope Documentation" */
export function pullScope(repository: string): string {
  return `repository:${repository}:pull`;
}

/**
 * Joins scopes: each resource once, its actions united and sorted, so that one set of rights is one cache key.
 * What is not of the form `type:name:actions` is kept as it is.
 */
export function joinScopes(...scopes: readonly (string | undefined)[]): string {
  const resources = new Map<string, Set<string>>();
  for (const scope of scopes.flatMap((text) => text?.split(/\s+/) ?? [])) {
    if (scope === '') continue;
    const last = scope.lastIndexOf(':');
    const structured = last > scope.indexOf(':');
    const resource = structured ? scope.slice(0, last) : scope;
    const actions = resources.get(resource) ?? new Set<string>();
    if (structured) for (const action of scope.slice(last + 1).split(',')) actions.add(action);
    resources.set(resource, actions);
  }
  return [...resources]
    .map(([resource, actions]) =>
      actions.size === 0 ? resource : `${resource}:${[...actions].sort().join(',')}`,
    )
    .sort()
    .join(' ');
}
