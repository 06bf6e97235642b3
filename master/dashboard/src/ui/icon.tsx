// Icons as paths in one stroke, drawn here so that nothing is fetched for them.

const PATHS = {
  fleet: "M4 5h16v5H4zM4 14h16v5H4zM7.5 7.5h.01M7.5 16.5h.01",
  tunnel: "M3 12h18M7 8l-4 4 4 4M17 8l4 4-4 4",
  session: "M4 5h16v14H4zM8 10l2.5 2L8 14M12.5 15H16",
  audit: "M7 4h10v16H7zM10 9h4M10 12.5h4M10 16h2",
  enrol: "M12 5v14M5 12h14",
  people: "M9 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6M3.5 19c0-3 2.4-5 5.5-5s5.5 2 5.5 5M16 5.5a3 3 0 0 1 0 5.5M17.5 14.2c1.9.7 3 2.4 3 4.800",
  settings: "M4 7h9M17 7h3M15 5v4M4 17h3M11 17h9M9 15v4",
  folder: "M4 6h6l2 2h8v11H4z",
  file: "M7 4h7l4 4v12H7zM14 4v4h4",
  up: "M12 19V6M6.5 11 12 5.5 17.5 11",
  close: "M6 6l12 12M18 6 6 18",
  external: "M13 5h6v6M19 5l-8 8M17 14v5H5V7h5",
} as const;

export type IconName = keyof typeof PATHS;

export const Icon = ({ name }: { name: IconName }) => (
  <svg class="icon" viewBox="0 0 24 24" width="18" height="18" aria-hidden="true">
    <path d={PATHS[name]} fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round" />
  </svg>
);
