/** The scope that writing to a repository needs. @see distribution "Token Scope Documentation" */
export function pushScope(repository: string): string {
  return `repository:${repository}:pull,push`;
}
