/** Tables of the flags of what happens in the cluster after kubectl. */

/** The wait for a rollout. */
export const WAIT_FLAGS = {
  wait: {
    kind: "optional",
    default: false,
    placeholder: "TIME",
    help: "Wait until the applied objects run, at most TIME (2m). If one does not run, say why. With -W, ko always tells that and never waits; --wait=false turns it off.",
  },
} as const;

/** The output of programs. */
export const LOGS_FLAGS = {
  logs: {
    kind: "bool",
    default: false,
    help: "With -W: show on stderr what the programs print in the cluster, with their names before each line.",
  },
} as const;

/** Other images in running Pods. */
export const SWAP_FLAGS = {
  swap: {
    kind: "bool",
    default: false,
    help: "With -W: replace the image in running Pods when only Go code has changed, without a rollout; apply at the end. Only for clusters on this machine.",
  },
  "swap-context": {
    kind: "text",
    default: "",
    placeholder: "NAME",
    help: "The context that --swap may change although its cluster is not on this machine.",
  },
} as const;
