/** How one set of credentials becomes a login: at once, or by a call to the provider's own service. */
export type LoginPlan =
  | { readonly kind: 'anonymous' }
  | { readonly kind: 'basic'; readonly username: string; readonly password: string }
  | { readonly kind: 'bearer'; readonly token: string }
  | { readonly kind: 'identity-token'; readonly token: string }
  | { readonly kind: 'ecr' | 'ecr-public'; readonly keys: AwsKeys }
  | { readonly kind: 'google-exchange'; readonly email: string; readonly privateKey: string }
  | { readonly kind: 'azure-exchange'; readonly accessToken: string; readonly tenant?: string };

export interface AwsKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}
