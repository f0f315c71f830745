/**
 * The table of environment variables that ko reads: `ko help environment`, `--help`, the manual pages and
 * docs/reference.md show it. A test compares it with the sources.
 */

export type Variables = Readonly<Record<string, string>>;

export const CACHE_VARIABLES = {
  KOCACHE: "Cache directory; off disables the cache. (default: ko in the user's cache directory)",
  KO_CACHE_MAX: "Maximum size of the cache, such as 20GB.",
} as const;

/** Places of logins. */
export const LOGIN_VARIABLES = {
  DOCKER_CONFIG: "Directory of config.json. (default: ~/.docker)",
  REGISTRY_AUTH_FILE: "File of podman, used if Docker has none.",
} as const;

export const GO_COMMAND = { KO_GO_PATH: "The go command. (default: go)" } as const;

const IMAGE_VARIABLES = {
  KO_DOCKER_REPO:
    "Repository for the images, such as registry.example.com/team. ko.local loads them into the local daemon, and kind.local, k3d.local or minikube.local into that cluster.",
  KO_DEFAULTBASEIMAGE:
    "Base image. Overrides defaultBaseImage in .ko.yaml. (default: gcr.io/distroless/static:nonroot)",
  KO_BASEIMAGEOVERRIDES: "Base images by import path, as a JSON object. Overrides baseImageOverrides in .ko.yaml.",
  KO_DEFAULTPLATFORMS: "Platforms without --platform. Overrides defaultPlatforms in .ko.yaml.",
  COSIGN_REPOSITORY: "Repository for the SBOMs, instead of that of their image.",
  SOURCE_DATE_EPOCH: "Creation time of the images, in seconds since 1970.",
  KO_DATA_DATE_EPOCH: "Modification time of files in kodata/, in seconds since 1970.",
  KO_DATA_PATH_ALLOWED_ROOT: "Directory above kodata/ that its symlinks may point into. (default: the source tree)",
} as const;

const GO_VARIABLES = {
  KO_CONFIG_PATH:
    "Configuration file, the directory of .ko.yaml, or auto: the nearest one up to the root of the repository. (default: the working directory)",
  KO_PROFILE: "Entry of profiles in .ko.yaml whose settings count.",
  KO_DEFAULTENV: "Variables for go, NAME=VALUE, separated by blanks. Overrides defaultEnv in .ko.yaml.",
  KO_DEFAULTFLAGS: "Flags of go build, separated by blanks. Overrides defaultFlags in .ko.yaml.",
  KO_DEFAULTLDFLAGS: "Flags of the Go linker, separated by blanks. Overrides defaultLdflags in .ko.yaml.",
  ...GO_COMMAND,
  "GOOS, GOARCH, GOARM": "The platform, if neither --platform nor defaultPlatforms names one.",
  "GOFLAGS, GOTOOLCHAIN, ...":
    "All variables of Go are passed on to go, and those that decide a program are inputs of it.",
  KO_BUILDS: "Refused: builds can be set in .ko.yaml only.",
} as const;

const REGISTRY_VARIABLES = {
  ...LOGIN_VARIABLES,
  DOCKER_AUTH_CONFIG: "The text of a config.json with logins, which counts before the file.",
  KO_TOKEN_HOSTS: "Token servers that may receive a registry's credentials: a list of REGISTRY=SERVER.",
  "GITHUB_TOKEN, GITHUB_ACTOR": "Login for ghcr.io, if no file has one.",
  "GOOGLE_APPLICATION_CREDENTIALS, CLOUDSDK_CONFIG, GCE_METADATA_HOST, GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES":
    "Identity for registries of Google: key or configuration of a workload, gcloud's directory, metadata server, and 1 to allow a program that fetches tokens.",
  "AWS_ACCESS_KEY_ID, AWS_ACCESS_KEY, AWS_SECRET_ACCESS_KEY, AWS_SECRET_KEY, AWS_SESSION_TOKEN":
    "Key for registries of AWS.",
  "AWS_PROFILE, AWS_DEFAULT_PROFILE, AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE": "Profile of AWS, and its files.",
  "AWS_ROLE_ARN, AWS_ROLE_SESSION_NAME, AWS_WEB_IDENTITY_TOKEN_FILE": "Role of AWS for a token of Kubernetes or of CI.",
  "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, AWS_CONTAINER_CREDENTIALS_FULL_URI, AWS_CONTAINER_AUTHORIZATION_TOKEN, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE":
    "Credentials of a container in AWS.",
  "AWS_EC2_METADATA_DISABLED, AWS_EC2_METADATA_SERVICE_ENDPOINT": "Metadata server of AWS: true disables it.",
  "AZURE_CLIENT_ID, AZURE_TENANT_ID, AZURE_CLIENT_SECRET, AZURE_FEDERATED_TOKEN, AZURE_FEDERATED_TOKEN_FILE":
    "Identity for registries of Azure: a secret, or a token of Kubernetes or of CI.",
  "AZURE_ENVIRONMENT, AZURE_AUTHORITY_HOST": "The cloud of Azure, and its login server.",
} as const;

const NETWORK_VARIABLES = {
  "HTTPS_PROXY, HTTP_PROXY, NO_PROXY": "Proxies (http, https, socks5), and hosts without one; lower case works too.",
  "SSL_CERT_FILE, SSL_CERT_DIR": "CA certificates, instead of those of the system.",
  KO_OFFLINE: "Not empty: as --offline, for every command.",
} as const;

const LOCAL_VARIABLES = {
  "DOCKER_HOST, DOCKER_CONTEXT":
    "The daemon of -L. (default: that of Docker's context, else the sockets of Docker and podman)",
  "DOCKER_TLS_VERIFY, DOCKER_CERT_PATH, DOCKER_TLS": "TLS of the daemon.",
  DOCKER_API_VERSION: "Version of the daemon's API, instead of the negotiated one.",
  COLIMA_HOME: "Directory of Colima, whose socket is looked for.",
  "KIND_CLUSTER_NAME, KIND_EXPERIMENTAL_PROVIDER":
    "Cluster of kind.local (default: kind), and docker, podman or nerdctl.",
  K3D_CLUSTER: "Cluster of k3d.local.",
  "MINIKUBE_PROFILE, MINIKUBE_HOME": "Cluster of minikube.local, and its directory.",
  KUBECONFIG: "Read by kubectl, as all of its variables.",
} as const;

const MACHINE_VARIABLES = {
  ...CACHE_VARIABLES,
  TMPDIR: "Directory for temporary files. (default: /tmp)",
  "HOME, USERPROFILE": "Home directory.",
  "XDG_CACHE_HOME, XDG_CONFIG_HOME, XDG_RUNTIME_DIR, APPDATA, LOCALAPPDATA": "The user's directories.",
  PATH: "Where go, git, kubectl and credential helpers are looked for.",
  "CI, TERM": "With CI set, or TERM=dumb, progress is shown as lines.",
  NO_COLOR: "Set, it leaves out the colours of a terminal. TERM=dumb does so, too.",
  "GITHUB_ACTIONS, GITHUB_WORKSPACE": "In a step of GitHub Actions, errors are annotations at their places.",
  "GITHUB_OUTPUT, GITHUB_STEP_SUMMARY": "Files of a step of GitHub Actions, which --github-output writes.",
  "GIT_CONFIG_GLOBAL, GIT_CONFIG_SYSTEM": "Files of git, whose changes are noticed.",
} as const;

/** The variables that matter most; `ko help environment` lists all. */
export const MAIN_VARIABLES: Variables = {
  KO_DOCKER_REPO: IMAGE_VARIABLES.KO_DOCKER_REPO,
  KO_DEFAULTBASEIMAGE: IMAGE_VARIABLES.KO_DEFAULTBASEIMAGE,
  KO_CONFIG_PATH: GO_VARIABLES.KO_CONFIG_PATH,
  KOCACHE: CACHE_VARIABLES.KOCACHE,
};

/** All variables, in groups. A key may name several variables. */
export const ALL_VARIABLES: readonly (readonly [heading: string, variables: Variables])[] = [
  ["Images", IMAGE_VARIABLES],
  ["Go programs", GO_VARIABLES],
  ["Registries", REGISTRY_VARIABLES],
  ["Network", NETWORK_VARIABLES],
  ["Local daemons and clusters", LOCAL_VARIABLES],
  ["This machine", MACHINE_VARIABLES],
];
