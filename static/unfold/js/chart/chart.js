// In place of unfold's Chart.js (70 kB packed), which no page of this admin draws with: charts here are the portal's own.
